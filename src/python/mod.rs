//! The extension module `ottla._ottla`: the engine as seen from Python.
//!
//! It is a thin shell. What a Python user touches (argument names, dates, formats, displays in a
//! notebook) is written in Python under `python/ottla`; what has to be fast, or independent of the
//! interpreter's state, is a class here. Everything is passed by value or through the Arrow
//! PyCapsule interface, so that no Python package is required and none is linked.
//!
//! Invariants:
//! - PY-1: no call that may block holds the GIL; every wait goes through [`runtime::wait`], which
//!   checks for signals at least every 50 ms.
//! - PY-2: memory behind an array that was handed out lives as long as the array, whatever
//!   happens to the broker, the topic or the files.
//! - PY-3: nothing that belongs to a parent process is dropped, locked or awaited in a child that
//!   was forked from it ([`runtime`]).
//! - PY-4: a task of the runtime attaches to the interpreter only with `try_attach`, so that an
//!   interpreter that is shutting down is never entered.
//!
//! Called by the interpreter; nothing else in the crate imports this module.

#![allow(
    clippy::needless_pass_by_value,
    clippy::used_underscore_items,
    reason = "arguments of methods are extracted from Python objects, as values"
)]
#![allow(clippy::doc_link_with_quotes, reason = "docstrings have examples of Python")]

mod admin;
mod archive;
mod batch;
mod batches;
mod broker;
mod client;
mod column;
mod consumer;
mod convert;
mod encoding;
mod errors;
mod formats;
mod group;
mod groups;
mod interop;
mod json_value;
mod logging;
mod pending;
mod pickled;
mod process;
mod reader;
mod registry;
mod rows;
mod runtime;
mod scan;
mod stream;
mod tier;
mod times;
mod transactional;
mod values;
mod whole;
mod write;

use std::ffi::OsString;

use pyo3::prelude::*;

/// Builds the module; see `python/ottla/_ottla.pyi` for what Python sees.
#[pymodule(gil_used = false)]
fn _ottla(module: &Bound<'_, PyModule>) -> PyResult<()> {
    runtime::remember_main_thread();
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("debug_build", cfg!(debug_assertions))?;
    module.add_class::<batch::RecordBatch>()?;
    module.add_class::<column::Column>()?;
    module.add_class::<broker::Broker>()?;
    module.add_class::<broker::Links>()?;
    module.add_class::<pending::Pending>()?;
    module.add_class::<client::Client>()?;
    module.add_class::<client::RecordMetadata>()?;
    module.add_class::<encoding::ValueEncoder>()?;
    module.add_class::<admin::Admin>()?;
    module.add_class::<groups::Groups>()?;
    module.add_class::<scan::Scan>()?;
    module.add_class::<stream::Stream>()?;
    module.add_class::<consumer::Consumer>()?;
    module.add_class::<registry::SchemaRegistry>()?;
    module.add_class::<transactional::TransactionalProducer>()?;
    module.add_function(wrap_pyfunction!(run_cli, module)?)?;
    module.add_function(wrap_pyfunction!(runtime::finish, module)?)?;
    module.add_function(wrap_pyfunction!(runtime::settle, module)?)?;
    Ok(())
}

/// Runs the command line, whose first argument is its name; returns the exit status.
#[pyfunction]
fn run_cli(py: Python<'_>, arguments: Vec<OsString>) -> i32 {
    py.detach(|| crate::cli::run(arguments))
}
