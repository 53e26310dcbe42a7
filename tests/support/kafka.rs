//! Where the tests find Apache Kafka. They are `#[ignore]`d, so that a run without it says so:
//! `OTTLA_KAFKA_LIBS=… cargo test … -- --ignored`, or `make kafka-test`. Once asked for, a missing
//! Kafka is a failure.

use std::path::PathBuf;

/// The version that `tests/kafka/pom.xml` names.
pub(crate) fn version() -> &'static str {
    let pom = include_str!("../kafka/pom.xml");
    let (_, rest) = pom.split_once("<kafka.version>").unwrap();
    rest.split_once('<').unwrap().0
}

/// The folder of its jars, which `OTTLA_KAFKA_LIBS` names.
pub(crate) fn jars() -> PathBuf {
    let version = version();
    let make = "mvn -f tests/kafka/pom.xml package -DoutputDirectory=FOLDER";
    let Some(folder) = std::env::var_os("OTTLA_KAFKA_LIBS").map(PathBuf::from) else {
        panic!("OTTLA_KAFKA_LIBS does not name the folder of Apache Kafka's jars: {make}");
    };
    // The tests run in the root of the repository.
    let clients = folder.join(format!("kafka-clients-{version}.jar"));
    assert!(clients.is_file(), "{} holds no Apache Kafka {version}: {make}", folder.display());
    folder
}
