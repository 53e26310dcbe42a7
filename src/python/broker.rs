//! The embedded broker.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::prelude::*;

use super::process::OfProcess;
use super::runtime;
use crate::broker::{Broker as Engine, BrokerOptions, Links as LinksOfNode};
use crate::error::{Error, Result};

/// The links of a node of `ottla.Cluster` to the others, which can be cut.
#[pyclass(frozen, module = "ottla._ottla")]
#[derive(Debug)]
pub(super) struct Links {
    engine: LinksOfNode,
}

#[pymethods]
impl Links {
    #[new]
    fn new() -> Self {
        Self { engine: LinksOfNode::default() }
    }

    /// Cuts the link to the node at a local port.
    fn cut(&self, port: u16) {
        self.engine.cut(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }

    /// Ends all cuts.
    fn heal(&self) {
        self.engine.heal();
    }
}

/// A broker in this process; see `ottla.Broker`.
#[pyclass(frozen, module = "ottla._ottla")]
#[derive(Debug)]
pub(super) struct Broker {
    engine: OfProcess<Engine>,
    bootstrap_servers: String,
    closed: AtomicBool,
}

impl Broker {
    /// The broker, for a client in the same process.
    pub(super) fn engine(&self) -> Result<&Arc<Engine>> {
        let remedy = format!(
            "an embedded broker does not survive a fork; connect to {} instead",
            self.bootstrap_servers
        );
        let engine = self.engine.get("the broker", &remedy)?;
        if self.closed.load(Ordering::SeqCst) {
            return Err(Error::Closed { what: "the broker" });
        }
        Ok(engine)
    }
}

#[pymethods]
impl Broker {
    #[new]
    #[pyo3(signature = (data_dir, listeners, properties, timeout, links=None))]
    fn new(
        py: Python<'_>,
        data_dir: Option<PathBuf>,
        listeners: Option<String>,
        properties: BTreeMap<String, String>,
        timeout: Option<f64>,
        links: Option<PyRef<'_, Links>>,
    ) -> PyResult<Self> {
        let links = links.map(|links| links.engine.clone());
        let start_timeout = runtime::timeout(timeout)?;
        let standalone = false;
        let options = BrokerOptions { data_dir, listeners, properties, standalone, start_timeout };
        let starting = async move {
            match links {
                Some(links) => Engine::start_linked(links, options).await,
                None => Engine::start(options).await,
            }
        };
        // The start has the limit itself: a directory is free again when this returns.
        let engine = runtime::wait(py, "the start of the broker", None, starting)?;
        let bootstrap_servers = engine.bootstrap_servers();
        Ok(Self {
            engine: OfProcess::new(engine),
            bootstrap_servers,
            closed: AtomicBool::new(false),
        })
    }

    #[getter]
    fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }

    #[getter]
    fn node_id(&self) -> Option<i32> {
        self.engine.peek().map(|engine| engine.node_id().0)
    }

    #[getter]
    fn cluster_id(&self) -> Option<String> {
        self.engine.peek().map(|engine| engine.cluster_id().to_owned())
    }

    #[getter]
    fn data_dir(&self) -> Option<PathBuf> {
        self.engine.peek().map(|engine| engine.data_dir().to_path_buf())
    }

    /// Whether this process started the broker, rather than a process that it was forked from.
    #[getter]
    fn here(&self) -> bool {
        self.engine.is_here()
    }

    #[getter]
    fn closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Ends as if the process had been killed.
    fn kill(&self, py: Python<'_>) -> PyResult<()> {
        if !self.engine.is_here() || self.closed.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        let engine = Arc::clone(self.engine.get("the broker", "")?);
        runtime::wait(py, "the end of the broker", None, async move {
            engine.kill().await;
            Ok(())
        })
    }

    #[pyo3(signature = (timeout))]
    fn close(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        let timeout = runtime::timeout(timeout)?;
        if !self.engine.is_here() || self.closed.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        let engine = Arc::clone(self.engine.get("the broker", "")?);
        runtime::wait(
            py,
            "the shutdown of the broker",
            timeout,
            async move { engine.shutdown().await },
        )
    }
}
