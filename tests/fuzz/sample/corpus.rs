//! The inputs that the search begins with: what a target brings, valid messages of every API and version, and what
//! once failed.
//!
//! They follow from what is in the tree, so only those that failed are kept (`tests/fuzz/corpus/TARGET/`). `make fuzz`
//! has them written for libFuzzer by [`corpus_is_written`].

use std::path::Path;

use bytes::Bytes;
use ottla::protocol::api::{Entry, KNOWN};
use ottla::protocol::schema::Schema;
use ottla::protocol::{Decoder, Request, RequestHeader, frame};

use super::message::{self, Choices};
use super::{INPUT_BYTES_MAX, Random, TARGETS};

/// How many bytes decide about a message: what runs out of them ends soon.
const CHOICES: [usize; 3] = [16, 48, 120];

/// All of them, for one target.
pub(crate) fn inputs(target: &str, seeds: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut inputs = kept(target);
    inputs.extend(seeds);
    inputs.extend(match target {
        "request_decode" => bodies(|entry| &entry.request),
        "response_decode" => bodies(|entry| &entry.response),
        "frame" => frames(),
        _ => Vec::new(),
    });
    inputs.retain(|input| input.len() <= INPUT_BYTES_MAX);
    inputs
}

/// The inputs that once failed.
fn kept(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// Valid bodies of every API and version, behind their places in the table.
fn bodies(table: fn(&Entry) -> &Schema) -> Vec<Vec<u8>> {
    let mut random = Random(1);
    let mut inputs = Vec::new();
    for (place, entry) in (0_u8..).zip(KNOWN) {
        for (index, version) in (0_u8..).zip(entry.versions.min..=entry.versions.max) {
            for count in CHOICES {
                let choices: Vec<u8> = (0..count).map(|_| random.next().to_le_bytes()[0]).collect();
                let body = message::message(table(entry), version, &mut Choices::new(&choices));
                inputs.push([&[place, index][..], &body].concat());
            }
        }
    }
    inputs
}

/// The same requests with their headers, as they come by a socket.
fn frames() -> Vec<Vec<u8>> {
    let mut inputs = Vec::new();
    for body in bodies(|entry| &entry.request) {
        let entry = &KNOWN[usize::from(body[0])];
        let version = entry.versions.min + i16::from(body[1]);
        let mut decoder = Decoder::new(Bytes::copy_from_slice(&body[2..]));
        let request = Request::decode(entry.api, version, &mut decoder).expect("a valid body");
        let header = RequestHeader {
            api_key: entry.api.to_i16(),
            api_version: version,
            correlation_id: 7,
            client_id: Some("c".into()),
        };
        inputs.push(frame::encode_request(&header, &request).expect("a valid request").concat());
    }
    inputs
}

/// Writes the inputs into folders of `OTTLA_FUZZ_CORPUS`, one for each target.
#[test]
fn corpus_is_written() {
    let Some(root) = std::env::var_os("OTTLA_FUZZ_CORPUS") else { return };
    for (name, _, seeds) in TARGETS {
        let directory = Path::new(&root).join(name);
        std::fs::create_dir_all(&directory).unwrap();
        for (number, input) in inputs(name, seeds()).iter().enumerate() {
            std::fs::write(directory.join(format!("{number:05}")), input).unwrap();
        }
    }
}
