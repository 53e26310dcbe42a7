//! Schema registries: one client per process and registry, shared by all formats that name it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pyo3::prelude::*;

use super::{process, runtime};
use crate::client::{RegistryAuth, RegistryConfig, SchemaRegistry as Engine};
use crate::columnar::{SchemaReference, SchemaSource};
use crate::error::{Error, Result};

/// A schema registry; see `ottla.SchemaRegistry`.
#[pyclass(frozen, module = "ottla._ottla")]
#[derive(Debug)]
pub(super) struct SchemaRegistry {
    config: RegistryConfig,
    /// The client of a process. Locked only while the GIL is held, so never during a fork; a child
    /// creates its own, since connections and their locks belong to the parent.
    client: Mutex<Option<(u32, Arc<Engine>)>>,
}

impl SchemaRegistry {
    /// The client of this process.
    fn engine(&self) -> Result<Arc<Engine>> {
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((process, engine)) = client.as_ref()
            && *process == process::current()
        {
            return Ok(Arc::clone(engine));
        }
        let engine = Arc::new(Engine::new(&self.config)?);
        if let Some(inherited) = client.replace((process::current(), Arc::clone(&engine))) {
            // Dropping it could wait for a lock that a thread of the parent held.
            std::mem::forget(inherited);
        }
        Ok(engine)
    }

    /// Where decoders and encoders find schemas.
    pub(super) fn source(&self) -> Result<Arc<dyn SchemaSource>> {
        Ok(self.engine()?)
    }

    /// The texts of the schemas that a schema refers to; waits for the registry.
    pub(super) fn texts(
        &self,
        py: Python<'_>,
        references: &[SchemaReference],
    ) -> Result<Vec<(String, String)>> {
        let engine = self.engine()?;
        py.detach(|| engine.texts(references))
    }
}

#[pymethods]
impl SchemaRegistry {
    #[new]
    #[pyo3(signature = (urls, user, token, ca_pem, timeout))]
    fn new(
        urls: &str,
        user: Option<(String, String)>,
        token: Option<String>,
        ca_pem: Option<Vec<u8>>,
        timeout: f64,
    ) -> PyResult<Self> {
        let mut config = RegistryConfig::new(urls)?;
        if let Some((username, password)) = user {
            config.auth = RegistryAuth::Basic { username, password };
        }
        if let Some(token) = token {
            if config.auth != RegistryAuth::None {
                let both = "the registry has both a user and a token: pass only one of them";
                return Err(Error::invalid(both).into());
            }
            config.auth = RegistryAuth::Bearer(token);
        }
        config.ca_pem = ca_pem;
        config.timeout = runtime::timeout(Some(timeout))?.unwrap_or(Duration::MAX);
        let registry = Self { config, client: Mutex::new(None) };
        // Fails at once when the certificates are not valid.
        registry.engine()?;
        Ok(registry)
    }

    /// The URLs, without users and passwords.
    #[getter]
    fn urls(&self) -> Vec<String> {
        self.config.urls.clone()
    }
}
