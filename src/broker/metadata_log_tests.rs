//! A quorum whose leader is another node: every command reaches it, and every answer comes back, as bytes.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

use super::*;
use crate::config::BrokerConfig;
use crate::machine::controller::{
    AllocateProducerIds, AnyReply, Bootstrap, BrokerRegistration, CreateTopics, NewTopic,
};
use crate::machine::metadata::MetadataDelta;
use crate::types::BrokerEpoch;

/// See the module. It lets commands through one by one, as the test allows.
#[derive(Debug)]
pub(in crate::broker) struct RemoteLeader {
    leader: Mutex<Leader>,
    allowed: Semaphore,
    is_shut_down: Mutex<bool>,
    /// Is told of each command that arrives.
    watcher: Mutex<Option<mpsc::UnboundedSender<AnyCommand>>>,
    /// How many of the next commands are not answered.
    swallowed: Mutex<usize>,
}

/// What the other node has.
#[derive(Debug)]
struct Leader {
    controller: Controller,
    image: Arc<MetadataImage>,
    subscribers: Vec<mpsc::Sender<MetadataUpdate>>,
    leads: bool,
}

impl Leader {
    /// Commits and applies.
    fn commit(&mut self, records: &[MetadataRecord]) -> Offset {
        if records.is_empty() {
            return self.image.offset;
        }
        self.controller.apply_all(records).unwrap();
        let mut delta = MetadataDelta::new(MetadataImage::clone(&self.image));
        for record in records {
            delta.replay(record).unwrap();
        }
        self.image = Arc::new(delta.apply(self.image.offset.next(), LeaderEpoch(1)));
        let update = MetadataUpdate { delta: Arc::new(delta), image: Arc::clone(&self.image) };
        self.subscribers.retain(|subscriber| subscriber.try_send(update.clone()).is_ok());
        self.image.offset
    }

    fn serve(&mut self, command: AnyCommand, respond: impl FnOnce(CommandAnswer) + Send + 'static) {
        let question = arrived(command, respond);
        if !self.leads {
            assert!(question.forward().is_none(), "COMMAND-2");
            return;
        }
        let (records, answer) = question.ask(&mut self.controller, Duration::ZERO);
        answer(Ok(self.commit(&records)));
    }
}

impl RemoteLeader {
    /// A leader that lets this many commands through.
    pub(in crate::broker) fn new(allowed: usize) -> Arc<Self> {
        let image = MetadataImage::empty();
        let config = BrokerConfig::default();
        let controller = Controller::new(NodeId(9), config, image.clone(), [1, 2]);
        let leader =
            Leader { controller, image: Arc::new(image), subscribers: vec![], leads: true };
        Arc::new(Self {
            leader: Mutex::new(leader),
            allowed: Semaphore::new(allowed),
            is_shut_down: Mutex::new(false),
            watcher: Mutex::default(),
            swallowed: Mutex::default(),
        })
    }

    /// Lets one more command through.
    pub(in crate::broker) fn allow_one(&self) {
        self.allowed.add_permits(1);
    }

    /// Commits what somebody else asked for.
    pub(in crate::broker) fn commit(&self, records: &[MetadataRecord]) -> Offset {
        self.leader().commit(records)
    }

    /// Whether it leads. It does from the beginning.
    pub(in crate::broker) fn lead(&self, leads: bool) {
        self.leader().leads = leads;
    }

    /// Every command that arrives from now on.
    pub(in crate::broker) fn watch(&self) -> mpsc::UnboundedReceiver<AnyCommand> {
        let (sender, receiver) = mpsc::unbounded_channel();
        *self.watcher.lock().unwrap() = Some(sender);
        receiver
    }

    /// Does not answer the next commands.
    pub(in crate::broker) fn swallow(&self, count: usize) {
        *self.swallowed.lock().unwrap() = count;
    }

    /// Tells the watcher; whether the command is to be answered. That a broker has died is not: this controller fences
    /// nobody by itself.
    fn takes(&self, command: &AnyCommand) -> bool {
        if let Some(watcher) = &*self.watcher.lock().unwrap() {
            // The test may have seen enough.
            drop(watcher.send(command.clone()));
        }
        if matches!(command, AnyCommand::BuryBroker(_)) {
            return false;
        }
        let mut swallowed = self.swallowed.lock().unwrap();
        let is_swallowed = *swallowed > 0;
        *swallowed = swallowed.saturating_sub(1);
        !is_swallowed
    }

    /// What is committed by now.
    #[cfg(feature = "sim")]
    pub(in crate::broker) fn image(&self) -> Arc<MetadataImage> {
        Arc::clone(&self.leader().image)
    }

    pub(in crate::broker) fn is_shut_down(&self) -> bool {
        *self.is_shut_down.lock().unwrap()
    }

    fn leader(&self) -> MutexGuard<'_, Leader> {
        self.leader.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As the broker's metadata log.
#[derive(Debug)]
pub(in crate::broker) struct ToRemote(pub(in crate::broker) Arc<RemoteLeader>);

impl MetadataLog for ToRemote {
    fn send(&self, question: Box<dyn Question>) -> BoxFuture<Result<()>> {
        let remote = Arc::clone(&self.0);
        Box::pin(async move {
            let Some(Forwarded { command, answered }) = question.forward() else { return Ok(()) };
            let command = match command.encode() {
                Ok(bytes) => AnyCommand::decode(&bytes).unwrap(),
                Err(error) => {
                    answered(Err(error));
                    return Ok(());
                }
            };
            tokio::spawn(async move {
                remote.allowed.acquire().await.unwrap().forget();
                if !remote.takes(&command) {
                    return std::future::pending().await;
                }
                let (sender, receiver) = oneshot::channel();
                remote.leader().serve(command, move |answer| drop(sender.send(answer.encode())));
                let answer = receiver.await.map_err(|_gone| Error::Closed { what: "the leader" });
                answered(answer.and_then(|bytes| CommandAnswer::decode(&bytes?)));
            });
            Ok(())
        })
    }

    fn subscribe(&self) -> (Arc<MetadataImage>, mpsc::Receiver<MetadataUpdate>) {
        let mut leader = self.0.leader();
        let (sender, receiver) = mpsc::channel(1000);
        leader.subscribers.push(sender);
        (Arc::clone(&leader.image), receiver)
    }

    fn image(&self) -> Arc<MetadataImage> {
        Arc::clone(&self.0.leader().image)
    }

    fn status(&self) -> QuorumStatus {
        QuorumStatus {
            leader: NodeId(9),
            epoch: LeaderEpoch(1),
            high_watermark: self.0.leader().image.offset.next(),
            voters: Vec::new(),
            observers: Vec::new(),
            endpoints: Vec::new(),
        }
    }

    fn voters(&self) -> VoterSet {
        VoterSet::default()
    }

    fn change_voters(
        &self,
        _: VoterChange,
        _: bool,
    ) -> BoxFuture<Result<Result<(), quorum::Refusal>>> {
        Box::pin(async { Ok(Err(quorum::Refusal::NotLeader)) })
    }

    fn answer(&self, _: quorum::Request) -> BoxFuture<Option<quorum::Response<Bytes>>> {
        Box::pin(std::future::ready(None))
    }

    fn carry_out(&self, _: AnyCommand) -> BoxFuture<CommandAnswer> {
        unreachable!("no other node asks it")
    }

    fn crashed(&self, _: NodeId) {}

    fn abandon(&self) -> BoxFuture<()> {
        self.shutdown()
    }

    fn shutdown(&self) -> BoxFuture<()> {
        *self.0.is_shut_down.lock().unwrap() = true;
        Box::pin(async {})
    }
}

fn log_of(remote: &Arc<RemoteLeader>) -> Arc<dyn MetadataLog> {
    Arc::new(ToRemote(Arc::clone(remote)))
}

fn broker(id: i32) -> BrokerRegistration {
    BrokerRegistration {
        id: NodeId(id),
        incarnation: Uuid([7; 16]),
        directory_id: Uuid([8; 16]),
        is_first: true,
        predecessor: None,
        cluster_id: None,
        endpoints: vec![],
        rack: None,
        ready: true,
    }
}

fn create(name: &str) -> CreateTopics {
    CreateTopics { topics: vec![NewTopic::new(name, 2, 1)], validate_only: false }
}

#[tokio::test]
async fn a_command_is_carried_out_on_the_node_that_leads() {
    let remote = RemoteLeader::new(usize::MAX >> 4);
    let log = log_of(&remote);
    let (_, mut updates) = log.subscribe();
    let epoch = log.submit(broker(1)).await.unwrap().reply.unwrap();
    let created = log.submit(create("t")).await.unwrap();
    let topic = created.reply.into_iter().next().unwrap().unwrap();
    assert_eq!(topic.partitions, 2);
    // The offset is where the asker finds it in its own image.
    let seen = loop {
        let update = updates.recv().await.unwrap();
        assert!(update.image.offset <= created.offset);
        if update.image.offset == created.offset {
            break update.image;
        }
        assert!(update.image.topic("t").is_none());
    };
    assert_eq!(seen.topic("t").unwrap().id, topic.id);
    // A refusal of one item is a reply like any other.
    let again = log.submit(create("t")).await.unwrap().reply.remove(0).unwrap_err();
    assert_eq!(again.code, ErrorCode::TopicAlreadyExists);
    let ids = log.submit(AllocateProducerIds { broker: NodeId(1), epoch }).await.unwrap();
    assert_eq!(ids.reply.unwrap().count, 1000);
    let stale = AllocateProducerIds { broker: NodeId(1), epoch: BrokerEpoch(epoch.0 + 1) };
    let refused = log.submit(stale).await.unwrap().reply.unwrap_err();
    assert_eq!(refused.code, ErrorCode::StaleBrokerEpoch);
}

#[tokio::test]
async fn whoever_asks_is_told_why_there_is_no_reply() {
    let remote = RemoteLeader::new(usize::MAX >> 4);
    let log = log_of(&remote);
    remote.leader().leads = false;
    let error = log.submit(broker(1)).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::NotController);
    assert!(error.to_string().contains("does not lead"), "{error}");
    let long = "x".repeat(20 << 20);
    let error =
        log.submit(Bootstrap { cluster_id: long.into(), is_proposal: false }).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidRequest);
}

#[test]
fn what_is_no_reply_to_a_command_is_refused() {
    let reply = AnyReply::UnregisterBroker(Ok(()));
    let other = CommandAnswer::Committed { offset: Offset(1), reply };
    let error = committed::<Bootstrap>(other).unwrap_err();
    assert!(error.to_string().contains("another command"), "{error}");
    let refused = failed(&Error::kafka(ErrorCode::StaleBrokerEpoch, "of another process"));
    let error = committed::<Bootstrap>(refused).unwrap_err();
    assert_eq!(error.code(), ErrorCode::StaleBrokerEpoch);
}
