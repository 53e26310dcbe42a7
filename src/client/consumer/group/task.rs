//! The membership task: carries out what the machine of the member says.
//!
//! It runs apart from the caller's polls, so that heartbeats go on while the caller is busy. It is
//! cancel-safe by ending only through [`Link::close`]: then it leaves the group and is done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;

use super::link::{Link, View};
use super::options::{GroupOptions, GroupProtocol, Subscription, whole_name};
use super::waiting::{self, Situation};
use super::wire::Wire;
use crate::client::cluster::{Cluster, Lane};
use crate::client::coordinator::Coordinator;
use crate::error::{Error, Result};
use crate::machine::Machine;
use crate::machine::client::group::assignor::Topics;
use crate::machine::client::group::classic::Classic;
use crate::machine::client::group::consumer::Consumer;
use crate::machine::client::group::waiting::{Act, Watch};
use crate::machine::client::group::{
    Answer, Attempt, Effect, Event, Identity, Partitions, Refusal, Request, Settings, Wanted,
};
use crate::protocol::ApiKey;
use crate::types::{TimestampMs, TopicId, Uuid};

/// How often a topic that is wanted but does not exist is looked for.
const MISSING_PERIOD: Duration = Duration::from_secs(1);

/// How long leaving may take; the session ends without it, too.
const LEAVE_MAX: Duration = Duration::from_secs(5);

/// The first version of ConsumerGroupHeartbeat that knows patterns.
const PATTERNS_SINCE: i16 = 1;

#[derive(Debug)]
enum Member {
    Classic(Box<Classic>),
    Consumer(Box<Consumer>),
}

impl Member {
    fn new(options: &GroupOptions, cluster: &Cluster) -> Self {
        let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        let rack = Some(cluster.config.client_rack.clone()).filter(|rack| !rack.is_empty());
        let settings = Settings {
            instance_id: options.instance_id.clone(),
            rack,
            assignors: options.assignors.clone(),
            remote_assignor: options.remote_assignor.clone(),
            heartbeat_ms: ms(options.heartbeat_interval),
            rebalance_ms: ms(options.rebalance_timeout),
            poll_ms_max: options.max_poll_interval.map(ms),
            backoff: cluster.config.backoff,
        };
        let (now, seed) = (cluster.now(), cluster.env.random.u64());
        match options.protocol {
            GroupProtocol::Classic => Self::Classic(Box::new(Classic::new(settings, now, seed))),
            GroupProtocol::Consumer => {
                let bits = [cluster.env.random.u64(), cluster.env.random.u64()];
                let mut bytes = [0; 16];
                for (byte, random) in
                    bytes.iter_mut().zip(bits.iter().flat_map(|b| b.to_be_bytes()))
                {
                    *byte = random;
                }
                let member_id = Uuid::from_random(bytes).to_string();
                Self::Consumer(Box::new(Consumer::new(settings, member_id, now, seed)))
            }
        }
    }

    fn step(&mut self, now: TimestampMs, event: Event, out: &mut Vec<Effect>) {
        match self {
            Self::Classic(member) => member.step(now, event, out),
            Self::Consumer(member) => member.step(now, event, out),
        }
    }

    fn next_deadline(&self) -> Option<TimestampMs> {
        match self {
            Self::Classic(member) => member.next_deadline(),
            Self::Consumer(member) => member.next_deadline(),
        }
    }

    fn state(&self) -> (Identity, &Partitions, bool) {
        match self {
            Self::Classic(member) => (member.identity(), member.owned(), member.is_stable()),
            Self::Consumer(member) => (member.identity(), member.owned(), member.is_stable()),
        }
    }

    fn doubt(&self) -> Option<i32> {
        match self {
            Self::Classic(member) => member.doubt(),
            Self::Consumer(member) => member.doubt(),
        }
    }

    fn is_leaving(&self) -> bool {
        match self {
            Self::Classic(member) => member.is_leaving(),
            Self::Consumer(member) => member.is_leaving(),
        }
    }

    fn watched(&self) -> Option<&BTreeSet<Arc<str>>> {
        match self {
            Self::Classic(member) => member.watched(),
            Self::Consumer(_) => None,
        }
    }
}

/// Something that the task waited for.
enum Done {
    Answered {
        attempt: Attempt,
        result: Result<Answer>,
    },
    LookedUp(Topics),
    Resolved(BTreeMap<TopicId, Arc<str>>),
    /// What to consume, and what became of the topics that the leader watches.
    Refreshed {
        wanted: Result<Wanted>,
        watched: Option<Topics>,
    },
    /// Whether the member waits for others.
    Asked(Situation),
    Left,
}

#[derive(Debug)]
pub(super) struct Task {
    cluster: Arc<Cluster>,
    options: Arc<GroupOptions>,
    link: Arc<Link>,
    wire: Arc<Wire>,
    member: Member,
    wanted: Option<Wanted>,
}

struct Run {
    task: Task,
    started: Instant,
    events: FuturesUnordered<BoxFuture<'static, Done>>,
    refreshing: bool,
    refresh_at: TimestampMs,
    /// The topics that do not exist, as it was said in the log.
    missing: BTreeSet<Arc<str>>,
    /// Whether it waits for others.
    watch: Watch,
    /// Closing began; leaving is what remains.
    is_closing: bool,
    /// Nobody waits longer for the answer that a leave needs.
    leave_by: TimestampMs,
    leaving: usize,
    has_failed: bool,
}

impl Task {
    pub(super) fn new(
        coordinator: Arc<Coordinator>,
        options: Arc<GroupOptions>,
        link: Arc<Link>,
        lane: Lane,
    ) -> Self {
        let cluster = Arc::clone(&coordinator.cluster);
        let member = Member::new(&options, &cluster);
        let wire = Arc::new(Wire { coordinator, options: Arc::clone(&options), lane });
        Self { cluster, options, link, wire, member, wanted: None }
    }

    /// Runs until the consumer is closed, or the membership fails for good.
    pub(super) async fn run(self) {
        let mut run = Run {
            task: self,
            started: Instant::now(),
            events: FuturesUnordered::new(),
            refreshing: false,
            refresh_at: TimestampMs::NONE,
            missing: BTreeSet::new(),
            watch: Watch::default(),
            is_closing: false,
            leave_by: TimestampMs::NONE,
            leaving: 0,
            has_failed: false,
        };
        run.run().await;
        let Task { link, wire, cluster, .. } = &run.task;
        link.view.send_modify(|view| {
            view.owned.clear();
            view.is_stable = false;
        });
        link.end(None);
        cluster.disconnect_lane(wire.lane);
    }
}

impl Run {
    async fn run(&mut self) {
        loop {
            self.look();
            self.step(Event::Tick);
            let is_leaving = self.leaving > 0
                || (self.task.member.is_leaving() && self.task.cluster.now() < self.leave_by);
            if self.has_failed || (self.is_closing && !is_leaving) {
                return;
            }
            self.start_refresh();
            self.look_for_a_wait();
            let now = self.task.cluster.now();
            let machine = self.task.member.next_deadline();
            let refresh = Some(self.refresh_at).filter(|_| !self.refreshing && !self.is_closing);
            let watch = self.watch.next_deadline();
            let leave = Some(self.leave_by).filter(|&at| self.is_closing && at > now);
            let next = machine.into_iter().chain(refresh).chain(watch).chain(leave).min();
            let wait_ms = next.map_or(60_000, |at| at.0.saturating_sub(now.0).clamp(0, 60_000));
            let wait = Duration::from_millis(u64::try_from(wait_ms).unwrap_or(0));
            let link = Arc::clone(&self.task.link);
            tokio::select! {
                biased;
                Some(done) = self.events.next() => self.handle(done),
                () = link.work.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Sees what the caller did.
    fn look(&mut self) {
        let noticed = self.task.link.notice();
        if self.is_closing || self.has_failed {
            return;
        }
        if noticed.closing {
            self.is_closing = true;
            let most = i64::try_from(LEAVE_MAX.as_millis()).unwrap_or(i64::MAX);
            self.leave_by = self.task.cluster.now().plus(most);
            self.step(Event::Close);
            return;
        }
        if noticed.seen {
            self.step(Event::Seen);
        }
        if noticed.released {
            self.step(Event::Released);
        }
    }

    fn step(&mut self, event: Event) {
        let now = self.task.cluster.now();
        let mut effects = Vec::new();
        self.task.member.step(now, event, &mut effects);
        // Whoever learns of its partitions may commit them at once, and whoever has lost them is
        // told why from the moment at which it cannot.
        let lost_reason = effects.iter().rev().find_map(|effect| match effect {
            Effect::Lose { reason, .. } => Some(reason.as_str()),
            _ => None,
        });
        self.publish(true, lost_reason);
        for effect in effects {
            self.carry_out(effect);
        }
        self.publish(false, None);
        // Revoking partitions that the caller never learned of needs no consent.
        if !self.is_closing && self.task.link.take_release() {
            self.step(Event::Released);
        }
    }

    /// Tells commits who the member is and what it has. Before the effects are carried out it is not
    /// stable: the caller has not heard of its partitions.
    fn publish(&self, before: bool, lost_reason: Option<&str>) {
        let (identity, owned, is_stable) = self.task.member.state();
        let changed = self.task.link.view.send_if_modified(|view| {
            let is_stable = is_stable && (view.is_stable || !before);
            let is_same =
                view.identity == identity && view.owned == *owned && view.is_stable == is_stable;
            if !is_same {
                *view = View { identity, owned: owned.clone(), is_stable, ..view.clone() };
            }
            if let Some(reason) = lost_reason {
                reason.clone_into(&mut view.lost_reason);
            }
            !is_same
        });
        if changed {
            self.task.link.wake_caller();
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        let link = Arc::clone(&self.task.link);
        match effect {
            Effect::Send { attempt, request } => self.send(attempt, request),
            Effect::LookUp(names) => {
                let cluster = Arc::clone(&self.task.cluster);
                self.events
                    .push(Box::pin(async move { Done::LookedUp(look_up(&cluster, &names).await) }));
            }
            Effect::Resolve(ids) => self.resolve(ids),
            Effect::Assign(partitions) => link.hand_over(|handover| handover.assign(partitions)),
            Effect::Revoke(partitions) => {
                link.hand_over(|handover| handover.revoke(&partitions));
            }
            Effect::Lose { partitions, reason } => {
                let group = &self.task.options.group_id;
                tracing::warn!(group, ?partitions, reason, "partitions were lost");
                link.hand_over(|handover| handover.lose(&partitions, reason));
            }
            Effect::Fail(Refusal { code, detail }) => {
                self.fail(Error::kafka(code, detail));
            }
        }
    }

    fn send(&mut self, attempt: Attempt, request: Request) {
        let wire = Arc::clone(&self.task.wire);
        let is_leave = match &request {
            Request::Leave { .. } => true,
            Request::Beat(beat) => beat.epoch < 0,
            _ => false,
        };
        if is_leave {
            self.leaving += 1;
            self.events.push(Box::pin(async move {
                match tokio::time::timeout(LEAVE_MAX, wire.send(request)).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => {
                        tracing::debug!(error = %error.chain(), "leaving the group failed");
                    }
                    Err(_) => tracing::debug!("leaving the group took too long"),
                }
                Done::Left
            }));
            return;
        }
        self.events.push(Box::pin(async move {
            let result = wire.send(request).await;
            Done::Answered { attempt, result }
        }));
    }

    fn handle(&mut self, done: Done) {
        match done {
            Done::Answered { result: Err(error), .. } if self.is_in_vain(&error) => {
                self.fail(error);
            }
            Done::Answered { attempt, result } => {
                let answer = result.map_err(|error| {
                    tracing::debug!(error = %error.chain(), "a request to the coordinator failed");
                    let code = error.code();
                    // The code is reported beside it.
                    let detail = match &error {
                        Error::Kafka { context, .. } => context.clone(),
                        other => other.chain(),
                    };
                    Refusal { code, detail }
                });
                self.step(Event::Answered { attempt, answer });
            }
            Done::LookedUp(topics) => self.step(Event::Topics(topics)),
            Done::Resolved(names) => self.step(Event::Names(names)),
            Done::Refreshed { wanted, watched } => self.refreshed(wanted, watched),
            Done::Asked(situation) => {
                let act = self.watch.answered(self.task.cluster.now(), situation.standing);
                self.act(act, &situation);
            }
            Done::Left => self.leaving = self.leaving.saturating_sub(1),
        }
    }

    /// Whether the cluster was never reached, and refuses.
    fn is_in_vain(&self, error: &Error) -> bool {
        self.task.cluster.obstacles.is_in_vain(error, self.started, Instant::now())
    }

    /// The membership ends.
    fn fail(&mut self, error: Error) {
        self.has_failed = true;
        self.task.link.end(Some(error));
    }

    /// Looks at the topics, at first and from time to time.
    fn start_refresh(&mut self) {
        let now = self.task.cluster.now();
        if self.refreshing || self.is_closing || self.refresh_at > now {
            return;
        }
        self.refreshing = true;
        let cluster = Arc::clone(&self.task.cluster);
        let options = Arc::clone(&self.task.options);
        let coordinator = Arc::clone(&self.task.wire.coordinator);
        let watched = self.task.member.watched().cloned();
        let is_first = self.task.wanted.is_none();
        self.events.push(Box::pin(async move {
            let wanted = if is_first && matches!(options.subscription, Subscription::Topics(_)) {
                // The member joins whether these topics exist or not, so there is nothing to wait for.
                Ok(names_of(&options))
            } else {
                what_is_wanted(&cluster, &coordinator, &options).await
            };
            let watched = match watched {
                Some(names) => Some(look_up(&cluster, &names).await),
                None => None,
            };
            Done::Refreshed { wanted, watched }
        }));
    }

    fn refreshed(&mut self, wanted: Result<Wanted>, watched: Option<Topics>) {
        self.refreshing = false;
        let now = self.task.cluster.now();
        let later =
            |period: Duration| now.plus(i64::try_from(period.as_millis()).unwrap_or(i64::MAX));
        match wanted {
            Ok(wanted) => {
                let is_missing = self.note_missing(&wanted);
                let period = self.task.cluster.config.metadata_max_age;
                let period = if is_missing { period.min(MISSING_PERIOD) } else { period };
                self.refresh_at = later(period);
                self.task.wanted = Some(wanted.clone());
                self.step(Event::Wanted(wanted));
            }
            Err(error) if error.retriable() && !self.is_in_vain(&error) => {
                tracing::debug!(error = %error.chain(), "looking up the topics failed");
                self.refresh_at = later(MISSING_PERIOD);
            }
            Err(error) => self.fail(error),
        }
        if let Some(topics) = watched {
            self.step(Event::Topics(topics));
        }
    }

    /// Whether topics are wanted that do not exist; says so in the log, once for each.
    fn note_missing(&mut self, wanted: &Wanted) -> bool {
        let Wanted::Topics(names) = wanted else { return false };
        let snapshot = self.task.cluster.snapshot();
        let missing = names.iter().filter(|name| !snapshot.topics.contains_key(*name));
        let missing: BTreeSet<Arc<str>> = missing.map(Arc::clone).collect();
        // The first time, nothing has been asked yet.
        let asked = self.task.wanted.is_some();
        for topic in missing.difference(&self.missing).filter(|_| asked) {
            let group = &self.task.options.group_id;
            tracing::warn!(group, %topic, "the topic does not exist; waiting until it is created");
        }
        if asked {
            self.missing.clone_from(&missing);
        }
        !missing.is_empty()
    }

    /// Finds out whether the member waits for others, once that lasts.
    fn look_for_a_wait(&mut self) {
        let doubt = self.task.member.doubt().filter(|_| !self.is_closing);
        let act = self.watch.look(self.task.cluster.now(), doubt);
        self.act(act, &Situation::UNKNOWN);
    }

    fn act(&mut self, act: Option<Act>, situation: &Situation) {
        let Some(act) = act else { return };
        let Task { cluster, options, link, member, .. } = &self.task;
        let group = &options.group_id;
        match act {
            Act::Ask => {
                let (cluster, options) = (Arc::clone(cluster), Arc::clone(options));
                let (identity, _, _) = member.state();
                self.events.push(Box::pin(async move {
                    Done::Asked(waiting::ask(cluster, options, identity.member_id).await)
                }));
            }
            Act::Tell { waited_ms } => {
                let Situation { words, who, .. } = situation;
                tracing::warn!(
                    group,
                    waited_ms,
                    "{words}: {who}; a member that died is waited for until its session ends"
                );
                link.say_waiting(words.clone());
            }
            Act::Over { waited_ms } => {
                tracing::info!(group, waited_ms, "the member no longer waits for others");
                link.say_waiting(String::new());
            }
        }
    }

    fn resolve(&mut self, ids: BTreeSet<TopicId>) {
        let cluster = Arc::clone(&self.task.cluster);
        let wanted = self.task.wanted.clone();
        self.events.push(Box::pin(async move {
            let known = |cluster: &Cluster| -> BTreeMap<TopicId, Arc<str>> {
                let snapshot = cluster.snapshot();
                let topics = snapshot.topics.values();
                let named = topics.filter(|topic| ids.contains(&topic.id));
                named.map(|topic| (topic.id, Arc::clone(&topic.name))).collect()
            };
            let mut names = known(&cluster);
            if names.len() < ids.len() {
                let asked = match &wanted {
                    Some(Wanted::Topics(topics)) => {
                        let topics: Vec<&str> = topics.iter().map(AsRef::as_ref).collect();
                        cluster.refresh(Some(&topics)).await
                    }
                    _ => cluster.refresh(None).await,
                };
                if let Err(error) = asked {
                    tracing::debug!(error = %error.chain(), "looking up topics by id failed");
                }
                names = known(&cluster);
            }
            Done::Resolved(names)
        }));
    }
}

fn names_of(options: &GroupOptions) -> Wanted {
    match &options.subscription {
        Subscription::Topics(topics) => {
            Wanted::Topics(topics.iter().map(|topic| Arc::from(topic.as_str())).collect())
        }
        Subscription::Pattern(pattern) => Wanted::Pattern(pattern.clone()),
    }
}

/// What to ask for: the topics by name, or those that a pattern matches now; the pattern itself
/// where the coordinator matches it.
async fn what_is_wanted(
    cluster: &Cluster,
    coordinator: &Coordinator,
    options: &GroupOptions,
) -> Result<Wanted> {
    let Subscription::Pattern(pattern) = &options.subscription else {
        let Subscription::Topics(topics) = &options.subscription else {
            return Ok(names_of(options));
        };
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        cluster.refresh(Some(&names)).await?;
        return Ok(names_of(options));
    };
    if options.protocol == GroupProtocol::Consumer {
        let (_, route) = coordinator.route(Lane::Control).await?;
        if route.version(ApiKey::ConsumerGroupHeartbeat)? >= PATTERNS_SINCE {
            return Ok(names_of(options));
        }
    }
    let matches = whole_name(pattern)?;
    cluster.refresh(None).await?;
    let snapshot = cluster.snapshot();
    let topics = snapshot.topics.values().filter(|topic| !topic.is_internal);
    let matching = topics.filter(|topic| matches.is_match(&topic.name));
    Ok(Wanted::Topics(matching.map(|topic| Arc::clone(&topic.name)).collect()))
}

/// The partitions of topics, and the racks of their replicas; what cannot be found out is left out.
async fn look_up(cluster: &Cluster, names: &BTreeSet<Arc<str>>) -> Topics {
    let list: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    let asked = cluster
        .retry("looking up the topics of a group", async || {
            cluster.refresh(Some(&list)).await.map(|_| ())
        })
        .await;
    if let Err(error) = asked {
        tracing::warn!(error = %error.chain(), "looking up the topics of a group failed");
    }
    let snapshot = cluster.snapshot();
    let racks = |partition: &crate::client::cluster::PartitionInfo| {
        let brokers = partition.replicas.iter().filter_map(|node| snapshot.brokers.get(node));
        brokers.filter_map(|broker| broker.rack.clone()).collect()
    };
    let found = |name: &Arc<str>| {
        let topic = snapshot.topics.get(name)?;
        Some((Arc::clone(name), topic.partitions.iter().map(racks).collect()))
    };
    names.iter().filter_map(found).collect()
}
