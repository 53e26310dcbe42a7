//! Valid bytes of any message at any version, generated from its table but not by the code under
//! test.
//!
//! The bytes are canonical: tagged fields ascend and none has its default, so decoding and encoding
//! them must give the same bytes.

use ottla::protocol::schema::{Field, Kind, Schema, Structure};

/// A stream of decisions; zeros when it runs out, so that messages end.
#[derive(Debug)]
pub(crate) struct Choices<'a> {
    bytes: &'a [u8],
}

impl<'a> Choices<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    fn next(&mut self) -> u8 {
        let Some((&first, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        first
    }

    fn fill<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.next())
    }

    fn is_over(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// The bytes of a message of this schema at `version`.
pub(crate) fn message(schema: &Schema, version: i16, choices: &mut Choices<'_>) -> Vec<u8> {
    let mut writer =
        Writer { out: Vec::new(), version, flexible: schema.flexible.contains(version), choices };
    writer.structure(schema.structure, false);
    writer.out
}

struct Writer<'a, 'b> {
    out: Vec<u8>,
    version: i16,
    flexible: bool,
    choices: &'a mut Choices<'b>,
}

impl Writer<'_, '_> {
    /// Writes a structure; with `special`, one that differs from its default.
    fn structure(&mut self, structure: &Structure, special: bool) {
        let version = self.version;
        let present = |field: &&Field| field.versions.contains(version);
        for field in structure.fields.iter().filter(present) {
            if !field.tagged.contains(version) {
                self.field(field, special);
            }
        }
        if !self.flexible {
            return;
        }
        let mut tagged: Vec<_> = structure
            .fields
            .iter()
            .filter(present)
            .filter(|field| field.tagged.contains(version) && self.choices.next() & 1 == 1)
            .collect();
        tagged.sort_by_key(|field| field.tag);
        self.varint(tagged.len());
        for field in tagged {
            let outer = std::mem::take(&mut self.out);
            self.field(field, true);
            let inner = std::mem::replace(&mut self.out, outer);
            self.varint(field.tag as usize);
            self.varint(inner.len());
            self.out.extend(inner);
        }
    }

    fn field(&mut self, field: &Field, special: bool) {
        let nullable = field.nullable.contains(self.version);
        let null = nullable && !special && self.choices.next().is_multiple_of(4);
        match field.kind {
            Kind::Struct(structure) => {
                if nullable {
                    self.out.push(if null { 0xff } else { 1 });
                }
                if !null {
                    self.structure(structure, special);
                }
            }
            Kind::String | Kind::Bytes | Kind::Records | Kind::Array(_) if null => {
                self.length(None, matches!(field.kind, Kind::String));
            }
            kind => self.value(kind, special),
        }
    }

    fn value(&mut self, kind: Kind, special: bool) {
        match kind {
            Kind::Bool => {
                let bit = self.choices.next() & 1;
                self.out.push(if special { 1 } else { bit });
            }
            Kind::Int8 => self.number::<1>(special),
            Kind::Int16 | Kind::Uint16 => self.number::<2>(special),
            Kind::Int32 | Kind::Uint32 => self.number::<4>(special),
            Kind::Int64 => self.number::<8>(special),
            // Made of few bytes, so that it is a number and equal to itself.
            Kind::Float64 => {
                let number = f64::from(self.choices.next()) + 0.5;
                self.out.extend(number.to_be_bytes());
            }
            Kind::Uuid => self.number::<16>(special),
            Kind::String => {
                let letters = ["a", "topic", "", "\u{e9}t\u{e9}", "\u{1f980}", "with space", "0"];
                let count = usize::from(self.choices.next() % 4).max(usize::from(special));
                let mut text = if special { "x".to_owned() } else { String::new() };
                for _ in 0..count {
                    text.push_str(letters[usize::from(self.choices.next()) % letters.len()]);
                }
                self.length(Some(text.len()), true);
                self.out.extend(text.bytes());
            }
            Kind::Bytes | Kind::Records => {
                let sizes = [0, 1, 61, 127, 128, 1023, 1024, 5000];
                let size = sizes[usize::from(self.choices.next()) % sizes.len()];
                let size = if special { size.max(1) } else { size };
                let seed = self.choices.next();
                self.length(Some(size), false);
                self.out.extend((0..size).map(|index| seed.wrapping_add(index as u8)));
            }
            Kind::Array(element) => {
                let wanted = usize::from(self.choices.next() % 4);
                let count = if self.choices.is_over() { 0 } else { wanted };
                let count = count.max(usize::from(special));
                self.length(Some(count), false);
                for _ in 0..count {
                    self.value(*element, false);
                }
            }
            Kind::Struct(structure) => self.structure(structure, special),
        }
    }

    /// No default in any table is 7.
    fn number<const N: usize>(&mut self, special: bool) {
        let bytes: [u8; N] = self.choices.fill();
        self.out.extend(bytes);
        if special && let Some(last) = self.out.last_mut() {
            *last = 7;
        }
    }

    fn length(&mut self, length: Option<usize>, string: bool) {
        if self.flexible {
            self.varint(length.map_or(0, |length| length + 1));
        } else if string {
            let length = length.map_or(-1, |length| i16::try_from(length).unwrap());
            self.out.extend(length.to_be_bytes());
        } else {
            let length = length.map_or(-1, |length| i32::try_from(length).unwrap());
            self.out.extend(length.to_be_bytes());
        }
    }

    fn varint(&mut self, mut value: usize) {
        while value >= 0x80 {
            self.out.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }
}
