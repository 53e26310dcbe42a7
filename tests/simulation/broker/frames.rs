//! A producer that writes its frames by hand, one at a time, and never again.

use std::net::SocketAddr;
use std::time::Duration;

use ottla::env::Env;
use ottla::protocol::api::Call;
use ottla::protocol::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use ottla::protocol::{Request, RequestHeader, frame};
use ottla::record::{BatchBuilder, BatchOptions};
use ottla::types::TimestampMs;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::clients::{PARTITIONS, Peer, TOPIC};

impl Peer {
    /// Sends frames by hand, one at a time, and never again; a new connection after each failure.
    pub(crate) async fn produce_by_hand(self) {
        let mut count = 0;
        while count < self.plan.records {
            let Some(mut wire) = Wire::connect(&self.own_env(), &self.plan.servers[0]).await else {
                self.rest(300).await;
                continue;
            };
            while count < self.plan.records {
                self.rest(self.plan.pause_ms).await;
                let partition = self.random.below(PARTITIONS as u64) as i32;
                let value = self.value(count);
                count += 1;
                self.sends(partition, &value);
                let Some(answer) = wire.produce(partition, &value).await else { break };
                if let (0, offset) = answer {
                    self.acknowledged(partition, value, offset);
                }
            }
        }
    }
}

/// A connection for frames made by hand.
pub(crate) struct Wire {
    reading: ottla::env::ReadHalf,
    writing: ottla::env::WriteHalf,
    correlation_id: i32,
}

impl Wire {
    pub(crate) async fn connect(env: &Env, address: &str) -> Option<Self> {
        let addresses: [SocketAddr; 1] = [address.parse().unwrap()];
        let connected = tokio::time::timeout(Duration::from_secs(1), env.net.connect(&addresses));
        let (reading, writing) = connected.await.ok()?.ok()?.into_split();
        Some(Self { reading, writing, correlation_id: 0 })
    }

    /// The error and the offset that a record is answered with; none when nothing comes back.
    async fn produce(&mut self, partition: i32, value: &str) -> Option<(i16, i64)> {
        const VERSION: i16 = 9;
        let mut batch = BatchBuilder::new(BatchOptions::default());
        batch.append(TimestampMs(1_700_000_000_000), None, Some(value.as_bytes()), &[]).unwrap();
        let records = vec![batch.finish().unwrap()].into();
        let data = PartitionProduceData { index: partition, records: Some(records) };
        let topic = TopicProduceData {
            name: TOPIC.into(),
            partition_data: vec![data],
            ..TopicProduceData::default()
        };
        let request = ProduceRequest {
            acks: -1,
            timeout_ms: 2000,
            topic_data: vec![topic],
            ..ProduceRequest::default()
        };
        let call = self.call(VERSION, request);
        let answer = tokio::time::timeout(Duration::from_secs(3), call).await.ok()??;
        let told = answer.responses.first()?.partition_responses.first()?;
        Some((told.error_code, told.base_offset))
    }

    pub(crate) async fn call<C: Call>(&mut self, version: i16, request: C) -> Option<C::Response> {
        self.correlation_id += 1;
        let header = RequestHeader {
            api_key: C::API.to_i16(),
            api_version: version,
            correlation_id: self.correlation_id,
            client_id: Some("by hand".into()),
        };
        let request: Request = request.into();
        let chunks = frame::encode_request(&header, &request).unwrap();
        self.writing.write_all(&chunks.concat()).await.ok()?;
        let length = self.reading.read_i32().await.ok()?;
        let mut body = vec![0; length as usize];
        self.reading.read_exact(&mut body).await.ok()?;
        let (_, response) = frame::decode_response(C::API, version, body.into()).unwrap();
        C::answer(response)
    }
}
