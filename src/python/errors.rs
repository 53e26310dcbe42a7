//! From [`Error`] to the exception classes of `ottla.errors`.
//!
//! The classes are written in Python, where they are documented and may inherit from the
//! builtins (`ottla.TimeoutError` is a `TimeoutError`). Which class an error becomes is decided
//! here, in one exhaustive match.

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::error::{Error, ErrorCode};

/// The class in `ottla.errors` for an error.
fn class_name(error: &Error) -> &'static str {
    match error {
        Error::Kafka { code, .. } | Error::RecordsRefused { code, .. } => class_of_code(*code),
        Error::OffsetOutOfRange { .. } => "OffsetOutOfRangeError",
        Error::Malformed { .. } => "ProtocolError",
        Error::Corrupt { .. } => "CorruptionError",
        Error::Io { .. } | Error::Offline { .. } | Error::InUse { .. } | Error::Newer { .. } => {
            "StorageError"
        }
        Error::Network { .. } => "ConnectionError",
        Error::InvalidArgument(_) => "ConfigError",
        Error::Timeout { .. } => "TimeoutError",
        Error::Closed { .. } => "ClosedError",
        Error::Decode { .. } => "DecodeError",
        Error::DataLoss { .. } => "DataLossError",
    }
}

/// The class for a code of the Kafka protocol; codes without one of their own raise the base.
fn class_of_code(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::OffsetOutOfRange => "OffsetOutOfRangeError",
        ErrorCode::CorruptMessage => "CorruptionError",
        ErrorCode::UnknownTopicOrPartition | ErrorCode::UnknownTopicId => "UnknownTopicError",
        ErrorCode::TopicAlreadyExists => "TopicExistsError",
        ErrorCode::RequestTimedOut => "TimeoutError",
        ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge => "MessageTooLargeError",
        ErrorCode::KafkaStorageError | ErrorCode::LogDirNotFound => "StorageError",
        ErrorCode::NetworkException | ErrorCode::BrokerNotAvailable => "ConnectionError",
        ErrorCode::UnsupportedVersion
        | ErrorCode::UnsupportedForMessageFormat
        | ErrorCode::SecurityDisabled => "NotSupportedError",
        ErrorCode::FencedInstanceId
        | ErrorCode::FencedMemberEpoch
        | ErrorCode::IllegalGeneration
        | ErrorCode::InvalidProducerEpoch
        | ErrorCode::ProducerFenced
        | ErrorCode::StaleMemberEpoch
        | ErrorCode::UnknownMemberId
        | ErrorCode::UnreleasedInstanceId => "FencedError",
        ErrorCode::InvalidConfig
        | ErrorCode::InvalidTopicException
        | ErrorCode::InvalidPartitions
        | ErrorCode::InvalidReplicationFactor
        | ErrorCode::InvalidReplicaAssignment
        | ErrorCode::InvalidRequest
        | ErrorCode::InvalidRequiredAcks => "ConfigError",
        ErrorCode::TopicAuthorizationFailed
        | ErrorCode::GroupAuthorizationFailed
        | ErrorCode::ClusterAuthorizationFailed
        | ErrorCode::TransactionalIdAuthorizationFailed
        | ErrorCode::SaslAuthenticationFailed => "AuthorizationError",
        _ => "KafkaError",
    }
}

/// Builds the exception of an error.
pub(super) fn to_exception(py: Python<'_>, error: &Error) -> PyErr {
    match build(py, error) {
        Ok(exception) => exception,
        // Only while the interpreter is being taken apart can the module be missing.
        Err(_unimportable) => PyRuntimeError::new_err(error.chain()),
    }
}

fn build(py: Python<'_>, error: &Error) -> PyResult<PyErr> {
    let class = py.import(intern!(py, "ottla.errors"))?.getattr(class_name(error))?;
    let attributes = PyDict::new(py);
    attributes.set_item("code", error.code().to_i16())?;
    attributes.set_item("name", error.code().name())?;
    attributes.set_item("retriable", error.retriable())?;
    Ok(PyErr::from_value(class.call((error.chain(),), Some(&attributes))?))
}

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        Python::try_attach(|py| to_exception(py, &error))
            .unwrap_or_else(|| PyRuntimeError::new_err(error.chain()))
    }
}
