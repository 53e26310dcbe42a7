//! The settings that describe a broker and its cluster, and only make sense together.

use super::definition::split_list;
use super::listeners::protocol_of;
use super::voters::{BOOTSTRAP, VOTERS, address_text, parse_addresses, parse_voters};
use super::{BrokerConfig, ConfigError, Listener, ListenerAddress, QuorumVoter};

impl BrokerConfig {
    /// Settles the identity, the directory and the listeners.
    ///
    /// # Errors
    ///
    /// Settings that contradict each other, or ask for a node that stores no metadata.
    pub(super) fn settle(&mut self) -> Result<(), ConfigError> {
        self.settle_node_id()?;
        self.settle_directories()?;
        self.settle_voters()?;
        self.settle_bootstrap()?;
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

    fn settle_voters(&mut self) -> Result<(), ConfigError> {
        let voters = self.value(VOTERS)?.unwrap_or_default();
        self.quorum_voters = parse_voters(&voters)?;
        let own = self.node_id;
        if !self.quorum_voters.is_empty() && self.own_voter().is_none() {
            let text = format!(
                "{VOTERS}={voters} does not name this node (node.id={own}): add {own}@host:port to the list of every node, or let this one join the cluster by {BOOTSTRAP} instead"
            );
            return Err(ConfigError::new(VOTERS, text));
        }
        Ok(())
    }

    fn own_voter(&self) -> Option<&QuorumVoter> {
        self.quorum_voters.iter().find(|voter| voter.id == self.node_id)
    }

    /// The voters apart from this node.
    pub fn other_voters(&self) -> impl Iterator<Item = &QuorumVoter> {
        self.quorum_voters.iter().filter(|voter| voter.id != self.node_id)
    }

    /// Whether the settings name other nodes. A node without any may have been joined by others nevertheless.
    #[must_use]
    pub fn has_peers(&self) -> bool {
        !self.bootstrap_servers.is_empty() || self.other_voters().next().is_some()
    }

    /// The nodes whose cluster this one joins: those of the list that are not this one itself, as in the settings that
    /// Apache Kafka comes with for one node.
    fn settle_bootstrap(&mut self) -> Result<(), ConfigError> {
        let given = self.value(BOOTSTRAP)?.unwrap_or_default();
        let all = parse_addresses(&given).map_err(|why| {
            let text = format!("invalid value {given} for configuration {BOOTSTRAP}: {why}");
            ConfigError::new(BOOTSTRAP, text)
        })?;
        let mut own = self.listener_list("listeners")?;
        own.extend(self.listener_list("advertised.listeners")?);
        let is_own = |(host, port): &&(String, u16)| own.iter().any(|one| is_at(one, host, *port));
        let others = all.iter().filter(|address| !is_own(address));
        self.bootstrap_servers = others.map(|(host, port)| address_text(host, *port)).collect();
        if !self.bootstrap_servers.is_empty()
            && !self.quorum_voters.is_empty()
            && self.other_voters().next().is_none()
        {
            let text = format!(
                "{VOTERS} makes this node a cluster of its own, and {BOOTSTRAP}={given} has it join another: give one of the two"
            );
            return Err(ConfigError::new(BOOTSTRAP, text));
        }
        self.auto_join = self.boolean("controller.quorum.auto.join.enable")?;
        Ok(())
    }

    /// Whether a listener is for other nodes only: clients are not told of it.
    #[must_use]
    pub fn is_of_controllers(&self, listener: &str) -> bool {
        self.controller_listeners.iter().any(|one| one.name == listener)
    }

    /// Other nodes must find this one where the list says, which is only certain for ports that are given.
    fn check_own_port(&self, listeners: &[ListenerAddress]) -> Result<(), ConfigError> {
        let Some(own) = self.own_voter().filter(|_| self.has_peers()) else { return Ok(()) };
        if listeners.iter().any(|listener| listener.port == own.port || listener.port == 0) {
            return Ok(());
        }
        let ports: Vec<String> = listeners.iter().map(|one| one.port.to_string()).collect();
        let text = format!(
            "{VOTERS} has {own} for this node, but none of its listeners has the port {}; theirs: {}",
            own.port,
            ports.join(", ")
        );
        Err(ConfigError::new(VOTERS, text))
    }

    /// Decides which listeners are opened: those of controllers only for other nodes, since the controller of this one
    /// is in this process.
    fn settle_listeners(&mut self) -> Result<(), ConfigError> {
        let map = self.checked("listener.security.protocol.map")?.unwrap_or_default();
        let controllers =
            self.value("controller.listener.names")?.unwrap_or_default().to_ascii_uppercase();
        let is_of_controller =
            |listener: &ListenerAddress| split_list(&controllers).any(|name| name == listener.name);
        let all = self.listener_list("listeners")?;
        self.check_own_port(&all)?;
        let (of_controllers, opened): (Vec<_>, Vec<_>) =
            all.into_iter().partition(is_of_controller);
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
        let for_peers: &[_] = if self.has_peers() { &self.controller_listeners } else { &[] };
        self.listeners = opened
            .iter()
            .chain(for_peers)
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

/// Whether a listener is reached by this address.
fn is_at(listener: &ListenerAddress, host: &str, port: u16) -> bool {
    let is_loopback = |host: &str| {
        let address = host.parse().map(|address: std::net::IpAddr| address.is_loopback());
        address.unwrap_or_else(|_name| host.eq_ignore_ascii_case("localhost"))
    };
    let is_host = match listener.host.as_deref() {
        None | Some("0.0.0.0" | "::") => is_loopback(host),
        Some(own) => own.eq_ignore_ascii_case(host) || (is_loopback(own) && is_loopback(host)),
    };
    listener.port == port && is_host
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
