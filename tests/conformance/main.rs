//! The same conversations and client cases with our broker and with Apache Kafka: a difference is a
//! bug, or a row of the difference table.
//!
//! Each has two tests: `ottla`, with our broker in the same process, in-process and over TCP; and
//! `apache_kafka`, which is ignored unless asked for, with one node of Apache Kafka that the first
//! of them starts (see [`node`]). Each makes its own topics, so they run side by side.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures,
    clippy::too_many_lines,
    reason = "a test may stop at the first surprise"
)]

/// Declares the two tests of each conversation (`transcript`) or client case (`peers`).
macro_rules! against_both {
    ($kind:ident: $($name:ident),* $(,)?) => {$(
        mod $name {
            #[test]
            fn ottla() {
                crate::$kind::against_ottla(stringify!($name), super::$name);
            }

            #[test]
            #[ignore = "needs Java and Apache Kafka's jars"]
            fn apache_kafka() {
                crate::$kind::against_kafka(stringify!($name), super::$name);
            }
        }
    )*};
}

mod admin;
mod batches;
mod compare;
mod difference_table;
mod differences;
mod frameworks;
mod groups;
mod histories;
#[path = "../support/history/mod.rs"]
mod history;
mod journal;
#[path = "../support/kafka.rs"]
mod kafka;
mod node;
mod nodes;
#[path = "../support/page.rs"]
mod page;
mod peers;
mod produce;
mod scan;
#[path = "../support/three.rs"]
mod three;
mod tools;
mod transaction_tools;
mod transactional_producer;
mod transactions;
mod transcript;
mod wire_classic;
#[path = "../support/wire_client.rs"]
mod wire_client;
mod wire_cluster;
mod wire_configs;
mod wire_consumer;
mod wire_fetch;
mod wire_logs;
mod wire_metadata;
mod wire_offsets;
mod wire_produce;
mod wire_topics;
mod wire_transaction_logs;
mod wire_transaction_offsets;
mod wire_transactions;
