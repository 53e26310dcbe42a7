//! The settings that describe a broker and its cluster, and only make sense together.

use super::definition::split_list;
use super::listeners::protocol_of;
use super::{BrokerConfig, ConfigError, Listener, ListenerAddress};

/// What several nodes would need.
const CLUSTER: &str = "needs a cluster of several nodes, which this version of ottla does not have";

impl BrokerConfig {
    /// Settles the identity, the directory and the listeners.
    ///
    /// # Errors
    ///
    /// Settings that contradict each other, or ask for other nodes.
    pub(super) fn settle(&mut self) -> Result<(), ConfigError> {
        self.settle_node_id()?;
        self.settle_directories()?;
        self.settle_voters()?;
        self.settle_listeners()
    }

    fn settle_node_id(&mut self) -> Result<(), ConfigError> {
        self.node_id = self.number("node.id")?;
        let Some(older) = self.fixed.get("broker.id") else { return Ok(()) };
        if older.trim() == "-1" || older.trim() == self.node_id.to_string() {
            return Ok(());
        }
        if let Some(newer) = self.fixed.get("node.id") {
            let text =
                format!("broker.id={older} and node.id={newer} are two names for the same setting");
            return Err(ConfigError::new("broker.id", text));
        }
        self.node_id = self.number("broker.id")?;
        if self.node_id < 0 {
            let text =
                format!("invalid value {older} for configuration broker.id: must not be negative");
            return Err(ConfigError::new("broker.id", text));
        }
        Ok(())
    }

    fn settle_directories(&mut self) -> Result<(), ConfigError> {
        self.log_dir = match self.value("log.dirs")? {
            None => self.value("log.dir")?,
            given => given,
        };
        let Some(metadata) = self.value("metadata.log.dir")? else { return Ok(()) };
        if self.log_dir.as_ref() == Some(&metadata) {
            return Ok(());
        }
        let text = format!(
            "metadata.log.dir={metadata} must be the directory of log.dirs: ottla keeps the metadata next to its log"
        );
        Err(ConfigError::new("metadata.log.dir", text))
    }

    fn settle_voters(&self) -> Result<(), ConfigError> {
        let name = "controller.quorum.voters";
        let voters = self.value(name)?.unwrap_or_default();
        for voter in split_list(&voters) {
            let id = voter.split_once('@').and_then(|(id, _)| id.trim().parse::<i32>().ok());
            let Some(id) = id else {
                let text = format!(
                    "invalid value {voters} for configuration {name}: \"{voter}\" does not have the form id@host:port"
                );
                return Err(ConfigError::new(name, text));
            };
            if id != self.node_id {
                let own = self.node_id;
                let text = format!(
                    "{name}={voters}: node {id} in addition to this node ({own}) {CLUSTER}"
                );
                return Err(ConfigError::new(name, text));
            }
        }
        Ok(())
    }

    /// Decides which listeners are opened: not those of controllers, since the controller is in this
    /// process.
    fn settle_listeners(&mut self) -> Result<(), ConfigError> {
        let map = self.checked("listener.security.protocol.map")?.unwrap_or_default();
        let controllers =
            self.value("controller.listener.names")?.unwrap_or_default().to_ascii_uppercase();
        let is_of_controller =
            |listener: &ListenerAddress| split_list(&controllers).any(|name| name == listener.name);
        let (of_controllers, opened): (Vec<_>, Vec<_>) =
            self.listener_list("listeners")?.into_iter().partition(is_of_controller);
        self.controller_listeners = of_controllers;
        if opened.is_empty() {
            let text = format!(
                "listeners has none for clients, only those of controller.listener.names={controllers}"
            );
            return Err(ConfigError::new("listeners", text));
        }
        let is_opened = |name: &str| opened.iter().any(|one| one.name == name);
        let mut advertised = self.listener_list("advertised.listeners")?;
        advertised.retain(|one| !is_of_controller(one));
        if let Some(other) = advertised.iter().find(|one| !is_opened(&one.name)) {
            let text =
                format!("advertised.listeners has {}, which is not in listeners", other.name);
            return Err(ConfigError::new("advertised.listeners", text));
        }
        self.listeners = opened
            .iter()
            .map(|bind| listener(bind, &map, &advertised))
            .collect::<Result<_, _>>()?;
        match self.value("inter.broker.listener.name")?.map(|name| name.to_ascii_uppercase()) {
            Some(name) if !is_opened(&name) => {
                let text = format!("inter.broker.listener.name={name} is not in listeners");
                Err(ConfigError::new("inter.broker.listener.name", text))
            }
            _ => Ok(()),
        }
    }
}

/// A listener with what the settings say about it.
fn listener(
    bind: &ListenerAddress,
    protocols: &str,
    advertised: &[ListenerAddress],
) -> Result<Listener, ConfigError> {
    let protocol = protocol_of(&bind.name, protocols)
        .map_err(|why| ConfigError::new("listeners", format!("listeners: {why}")))?;
    let told = advertised.iter().find(|one| one.name == bind.name);
    let advertised = told.map(ListenerAddress::advertised).transpose().map_err(|why| {
        ConfigError::new("advertised.listeners", format!("advertised.listeners: {why}"))
    })?;
    Ok(Listener { bind: bind.clone(), protocol, advertised })
}
