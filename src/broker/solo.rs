//! A metadata log of one process: bridges the time until the quorum is joined.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::connection::BoxFuture;
use super::metadata_log::{MetadataLog, QuorumStatus, VoterStatus};
use crate::config::BrokerConfig;
use crate::env::{Env, OpenMode};
use crate::error::{Error, Result};
use crate::log::LogDirectory;
use crate::machine::Machine;
use crate::machine::controller::{Command, Controller, Event, Reply};
use crate::machine::metadata::{MetadataDelta, MetadataImage, MetadataRecord};
use crate::types::{LeaderEpoch, NodeId, Offset, TimestampMs, Uuid};

struct Solo {
    env: Env,
    node: NodeId,
    directory_id: Uuid,
    path: PathBuf,
    inner: Mutex<Controller>,
    images: watch::Sender<Arc<MetadataImage>>,
}

impl fmt::Debug for Solo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Solo")
    }
}

pub(super) async fn start(
    env: &Env,
    config: &BrokerConfig,
    directory: &LogDirectory,
    _volatile: bool,
) -> Result<Arc<dyn MetadataLog>> {
    let path = directory.path().join("metadata.jsonl");
    let bytes = env.disk.read(&path).map_err(|error| Error::io("read", &path, error))?;
    let mut delta = MetadataDelta::new(MetadataImage::empty());
    let mut offset = -1;
    for line in String::from_utf8_lossy(&bytes.unwrap_or_default()).lines() {
        let record: MetadataRecord = serde_json::from_str(line)
            .map_err(|error| Error::corrupt(&path, 0, error.to_string()))?;
        delta.replay(&record)?;
        offset += 1;
    }
    let image = delta.apply(Offset(offset), LeaderEpoch(1));
    let node = NodeId(config.node_id);
    let seed = [env.random.u64(), env.random.u64()];
    let controller = Controller::new(node, config.clone(), image.clone(), seed);
    Ok(Arc::new(Solo {
        env: env.clone(),
        node,
        directory_id: directory.meta().directory_id,
        path,
        inner: Mutex::new(controller),
        images: watch::Sender::new(Arc::new(image)),
    }))
}

impl Solo {
    fn run(&self, command: Command) -> Result<Reply> {
        let mut controller = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = Vec::new();
        controller.step(self.env.clock.now(), Event::Command { request: 1, command }, &mut out);
        let decision = out.pop().ok_or(Error::Closed { what: "the controller" })?;
        if !decision.records.is_empty() {
            let mut text = String::new();
            for record in &decision.records {
                text.push_str(&serde_json::to_string(record).unwrap_or_default());
                text.push('\n');
            }
            let write = || -> std::io::Result<()> {
                let file = self.env.disk.open(&self.path, OpenMode::Create)?;
                file.write_all_at(&[text.as_bytes()], file.len()?)?;
                file.sync_data()
            };
            write().map_err(|error| Error::io("write", &self.path, error))?;
            controller.apply_all(&decision.records)?;
            let before = self.images.borrow().clone();
            let mut delta = MetadataDelta::new((*before).clone());
            for record in &decision.records {
                delta.replay(record)?;
            }
            let offset = before.offset.plus(i64::try_from(decision.records.len()).unwrap_or(0));
            self.images.send_replace(Arc::new(delta.apply(offset, LeaderEpoch(1))));
        }
        Ok(decision.reply)
    }
}

impl MetadataLog for Solo {
    fn submit(&self, command: Command) -> BoxFuture<Result<Reply>> {
        let result = self.run(command);
        Box::pin(std::future::ready(result))
    }

    fn subscribe(&self) -> watch::Receiver<Arc<MetadataImage>> {
        self.images.subscribe()
    }

    fn status(&self) -> QuorumStatus {
        let end = self.images.borrow().offset.next();
        QuorumStatus {
            leader: self.node,
            epoch: LeaderEpoch(1),
            high_watermark: end,
            voters: vec![VoterStatus {
                id: self.node,
                directory_id: self.directory_id,
                log_end_offset: end,
                last_caught_up: TimestampMs::NONE,
            }],
        }
    }

    fn shutdown(&self) -> BoxFuture<()> {
        Box::pin(std::future::ready(()))
    }
}
