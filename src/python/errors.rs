//! Converts [`Error`] to the exception classes of `ottla.errors`.
//!
//! The classes are written in Python, where they are documented and may inherit from the
//! builtins (`ottla.TimeoutError` is a `TimeoutError`). Which class an error becomes is decided
//! here, in one exhaustive match.

use std::io;
use std::path::Path;

use pyo3::exceptions::{PyImportError, PyOSError, PyRuntimeError};
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
        Error::InvalidArgument(_) | Error::Row { .. } => "ConfigError",
        Error::Timeout { .. } => "TimeoutError",
        Error::Closed { .. } => "ClosedError",
        Error::UnknownOutcome { .. } => "CommitUnknownError",
        Error::Decode { .. } => "DecodeError",
        Error::DataLoss { .. } => "DataLossError",
    }
}

/// The class for a code of the Kafka protocol; codes without a class of their own raise the base
/// class.
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
        ErrorCode::TransactionAbortable => "TransactionAbortedError",
        ErrorCode::ConcurrentTransactions
        | ErrorCode::InvalidProducerIdMapping
        | ErrorCode::InvalidTxnState
        | ErrorCode::TransactionCoordinatorFenced
        | ErrorCode::TransactionalIdNotFound => "TransactionError",
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
        | ErrorCode::InvalidRequiredAcks
        | ErrorCode::InvalidTransactionTimeout => "ConfigError",
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
        // The module can only be missing while the interpreter shuts down.
        Err(failed) if failed.is_instance_of::<PyImportError>(py) => {
            PyRuntimeError::new_err(error.chain())
        }
        // A signal handler raised while Python code ran here: what it raises comes first.
        Err(interrupted) => interrupted,
    }
}

fn build(py: Python<'_>, error: &Error) -> PyResult<PyErr> {
    let class = py.import(intern!(py, "ottla.errors"))?.getattr(class_name(error))?;
    let attributes = PyDict::new(py);
    attributes.set_item("code", error.code().to_i16())?;
    attributes.set_item("name", error.code().name())?;
    attributes.set_item("retriable", error.retriable())?;
    let exception = PyErr::from_value(class.call((error.chain(),), Some(&attributes))?);
    if let Some(cause) = cause(py, error)? {
        exception.set_cause(py, Some(cause));
    }
    Ok(exception)
}

/// What is behind an error, as `__cause__`: an error of ours, or one of the operating system.
fn cause(py: Python<'_>, error: &Error) -> PyResult<Option<PyErr>> {
    match error {
        Error::Timeout { source: Some(source), .. }
        | Error::Kafka { source: Some(source), .. }
        | Error::UnknownOutcome { source: Some(source), .. } => build(py, source).map(Some),
        Error::Network { source, .. } => os_error(py, source, None).map(Some),
        Error::Io { source, path, .. } => os_error(py, source, Some(path)).map(Some),
        _ => Ok(None),
    }
}

/// An `OSError`, of the subclass that belongs to its number if it has one.
fn os_error(py: Python<'_>, error: &io::Error, path: Option<&Path>) -> PyResult<PyErr> {
    let (number, text) = match (error.raw_os_error(), name_of(error.kind())) {
        (Some(number), _) => {
            let text = py.import(intern!(py, "os"))?.call_method1("strerror", (number,))?;
            (number, text.extract()?)
        }
        (None, Some(name)) => {
            (py.import(intern!(py, "errno"))?.getattr(name)?.extract()?, error.to_string())
        }
        (None, None) => return Ok(PyOSError::new_err(error.to_string())),
    };
    Ok(match path {
        Some(path) => PyOSError::new_err((number, text, path.to_path_buf())),
        None => PyOSError::new_err((number, text)),
    })
}

/// The name of the number of an error that we made ourselves.
const fn name_of(kind: io::ErrorKind) -> Option<&'static str> {
    match kind {
        io::ErrorKind::TimedOut => Some("ETIMEDOUT"),
        io::ErrorKind::ConnectionRefused => Some("ECONNREFUSED"),
        io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => Some("ECONNRESET"),
        io::ErrorKind::StorageFull => Some("ENOSPC"),
        _ => None,
    }
}

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        Python::try_attach(|py| to_exception(py, &error))
            .unwrap_or_else(|| PyRuntimeError::new_err(error.chain()))
    }
}
