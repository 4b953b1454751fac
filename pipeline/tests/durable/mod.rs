//! Nothing is acknowledged before it is durable, and nothing of an older
//! assignment comes through. The mock broker shows what was written even where
//! the transaction was aborted, and never keeps offsets; so a stage that is
//! refused is seen to do its batch again.

use drover_pipeline::idempotency::FirstTouch;
use drover_pipeline::kafka::Place;
use drover_pipeline::kafka::compacted::{Follower, Tail, scan, watermarks};
use drover_pipeline::kafka::consumer::{Assignment, Member, Polled, Rebalance};
use drover_pipeline::kafka::producer::{PlainProducer, Record};
use drover_pipeline::parking::Reason;
use drover_pipeline::record::Op;
use drover_pipeline::topics::partition_of;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use tokio::sync::Semaphore;

use super::*;

/// The records of a topic that have a value, keys in the order of their offsets.
fn log(rig: &Rig, topic: &str) -> Vec<(String, Vec<u8>)> {
    let mut log = Vec::new();
    scan(&rig.client(), topic, |_, _, key, value| {
        if let Some(value) = value {
            let key = String::from_utf8(key.to_vec()).expect("UTF-8");
            log.push((key, value.to_vec()));
        }
    })
    .expect("the topic");
    log
}

fn extract(rig: &mut Rig) {
    let context = rig.context(Stage::Extractor, "e");
    let run = drover_pipeline::extract::run(rig.source.clone(), context);
    rig.stages.push(tokio::spawn(run));
}

fn transform(rig: &mut Rig) {
    let run = drover_pipeline::transform::run::<Fake>(rig.context(Stage::Transformer, "t"));
    rig.stages.push(tokio::spawn(run));
}

fn load<L: Loader>(rig: &mut Rig, target: L) {
    let run = drover_pipeline::load::run(target, rig.context(Stage::Loader, "l"));
    rig.stages.push(tokio::spawn(run));
}

/// From now on the broker takes no offsets of the group, as from a member of an
/// older generation.
fn refuse_offsets(rig: &Rig) {
    let refused = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION; 1000];
    let Broker::Mock(cluster) = &rig.broker else {
        panic!("a real broker refuses nothing on demand");
    };
    cluster.request_errors(RDKafkaApiKey::TxnOffsetCommit, &refused);
}

/// Ends the stages, whatever the broker refuses them while they end.
async fn leave(mut rig: Rig) {
    rig.stop.cancel();
    for stage in std::mem::take(&mut rig.stages) {
        let _ = stage.await.expect("no panic");
    }
}

/// A migration whose canonical companies lie there, and no stage runs.
async fn transformed(target: Target) -> Rig {
    let mut rig = Rig::new(target);
    for n in 0..4 {
        rig.source
            .add("company", &n.to_string(), 1, name(&format!("company {n}")));
    }
    extract(&mut rig);
    transform(&mut rig);
    let topic = rig.topics.canonical("company");
    rig.until("the canonical records", |rig| log(rig, &topic).len() == 4)
        .await;
    rig.stop().await;
    rig
}

/// Whether the source's log of deletes reaches back so far, nobody knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_copy_tells_what_was_deleted_since_the_one_before() {
    let mut rig = Rig::new(Target::default());
    let raw = rig.topics.raw("company", false);
    for n in 0..10 {
        rig.source.add("company", &n.to_string(), 1, name("a name"));
    }
    extract(&mut rig);
    rig.until("the first copy", |rig| log(rig, &raw).len() == 10)
        .await;
    rig.stop().await;
    // Hard-deleted: nothing tells of it.
    {
        let mut changes = rig.source.changes.lock().expect("lock");
        let company = changes.get_mut("company").expect("changes");
        company.retain(|change| change.id != "3" && change.id != "8");
    }
    rig.source.as_of.store(77, Ordering::SeqCst);
    let producer = PlainProducer::open(&rig.client()).expect("a producer");
    let checkpoint = rig.topics.checkpoint();
    let taken = Record::new(&checkpoint, b"fake/company", None);
    producer.send(taken).expect("a tombstone");
    producer.flush(Duration::from_secs(10)).expect("written");
    extract(&mut rig);
    rig.until("the new copy", |rig| log(rig, &raw).len() == 20)
        .await;
    rig.stop().await;
    let log = log(&rig, &raw);
    let mut deleted: Vec<(&str, i64)> = Vec::new();
    for (key, value) in &log[10..] {
        let envelope = Envelope::decode(value).expect("an envelope");
        match envelope.op {
            Op::Delete => deleted.push((key, envelope.version)),
            _ => assert_eq!(envelope.version, 1, "{key}"),
        }
    }
    deleted.sort_unstable();
    assert_eq!(deleted, [("fake/company/3", 77), ("fake/company/8", 77)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_extractor_goes_on_where_its_last_page_ended() {
    let mut rig = Rig::new(Target::default());
    let raw = rig.topics.raw("company", false);
    for n in 0..10 {
        rig.source.add("company", &n.to_string(), 1, name("a name"));
    }
    extract(&mut rig);
    rig.until("the first pages", |rig| log(rig, &raw).len() == 10)
        .await;
    rig.stop().await;
    rig.source.add("company", "10", 1, name("a name"));
    extract(&mut rig);
    rig.until("the new one", |rig| {
        log(rig, &raw)
            .iter()
            .any(|(key, _)| key == "fake/company/10")
    })
    .await;
    assert_eq!(log(&rig, &raw).len(), 11, "nothing is read again");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transformer_whose_offsets_are_refused_has_done_nothing() {
    let mut rig = Rig::new(Target::default());
    for n in 0..4 {
        rig.source.add("company", &n.to_string(), 1, name("a name"));
    }
    extract(&mut rig);
    let raw = rig.topics.raw("company", false);
    rig.until("the raw records", |rig| log(rig, &raw).len() == 4)
        .await;
    rig.stop().await;
    refuse_offsets(&rig);
    transform(&mut rig);
    let canonical = rig.topics.canonical("company");
    rig.until("the batch is done again", |rig| {
        log(rig, &canonical).len() >= 8
    })
    .await;
    leave(rig).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loader_whose_offsets_are_refused_has_done_nothing() {
    let target = Target {
        ordered: true,
        ..Target::default()
    };
    let mut rig = transformed(target.clone()).await;
    refuse_offsets(&rig);
    load(&mut rig, target);
    let table = rig.topics.idempotency();
    rig.until("the batch is done again", |rig| log(rig, &table).len() >= 8)
        .await;
    leave(rig).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loader_whose_pending_is_refused_sends_nothing() {
    let target = Target::default();
    let mut rig = transformed(target.clone()).await;
    refuse_offsets(&rig);
    load(&mut rig, target.clone());
    let tables = [rig.topics.idempotency(), rig.topics.parked()];
    let sent = || target.sent.lock().expect("lock").len();
    rig.until("it begins again", |rig| {
        tables.iter().map(|t| log(rig, t).len()).sum::<usize>() >= 8 || sent() > 0
    })
    .await;
    assert_eq!(sent(), 0, "sent without a Pending that counts");
    leave(rig).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_key_only_the_newest_version_is_sent() {
    let target = Target {
        ordered: true,
        ..Target::default()
    };
    let mut rig = Rig::new(target.clone());
    // A source that lags behind repeats an older version.
    for (version, text) in [(1, "first"), (3, "third"), (2, "second")] {
        rig.source.add("company", "k", version, name(text));
    }
    extract(&mut rig);
    transform(&mut rig);
    let topic = rig.topics.canonical("company");
    rig.until("the canonical records", |rig| log(rig, &topic).len() == 3)
        .await;
    load(&mut rig, target.clone());
    rig.until("the entry", |rig| !rig.entries().is_empty())
        .await;
    let sent = target.sent.lock().expect("lock").clone();
    assert_eq!(sent, ["fake/company/k#main"]);
    assert_eq!(rig.rows()["fake/company/k#main"].name, "third");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_lies_where_its_owner_looks() {
    let rig = Rig::new(Target::default());
    let topic = rig.topics.idempotency();
    let keys: Vec<String> = (0..40).map(|n| format!("fake/company/{n}#main")).collect();
    let mut places = HashMap::new();
    tokio::task::block_in_place(|| {
        let producer = PlainProducer::open(&rig.client()).expect("a producer");
        for key in &keys {
            let record = Record::new(&topic, key.as_bytes(), Some(b"{}"));
            producer.send(record).expect("sent");
        }
        producer.flush(Duration::from_secs(10)).expect("durable");
        scan(&rig.client(), &topic, |place, _, key, _| {
            places.insert(key.to_vec(), place.partition);
        })
        .expect("the topic");
    });
    for key in &keys {
        let partition = partition_of(key.as_bytes(), PARTITIONS);
        assert_eq!(places.get(key.as_bytes()), Some(&partition), "{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_we_created_is_known_as_ours_for_ever() {
    let mut rig = Rig::new(Target::default());
    rig.source.add("company", "k", 1, name("first"));
    rig.run();
    let key = "fake/company/k#main";
    rig.until("the create", |rig| rig.entries().contains_key(key))
        .await;
    rig.source.add("company", "k", 2, name("second"));
    rig.until("the update", |rig| rig.rows()[key].name == "second")
        .await;
    rig.source.add("company", "k", 3, None);
    let deleted = |entry: &Entry| matches!(entry.state, State::Deleted { .. });
    rig.until("the delete", |rig| deleted(&rig.entries()[key]))
        .await;
    assert_eq!(rig.entries()[key].first_touch, Some(FirstTouch::Created));
    rig.end().await;
}

/// A target that is asked for contacts only as often as a test allows.
#[derive(Clone)]
struct Gated {
    target: Target,
    /// Gets a permit for each call that waits.
    waits: Arc<Semaphore>,
    /// A permit lets a call through.
    gate: Arc<Semaphore>,
}

impl Loader for Gated {
    const NAME: &'static str = "fake";
    type Config = ();

    fn new((): (), http: HttpClient) -> Result<Self, Vec<Problem>> {
        Ok(Gated {
            target: Target::new((), http)?,
            waits: Arc::new(Semaphore::new(0)),
            gate: Arc::new(Semaphore::new(0)),
        })
    }
    fn entities(&self) -> Vec<EntitySupport> {
        self.target.entities()
    }
    async fn check(&self) -> Result<()> {
        self.target.check().await
    }
    async fn plan(&self) -> Result<Vec<String>> {
        self.target.plan().await
    }
    async fn prepare(&self) -> Result<()> {
        self.target.prepare().await
    }
    async fn apply(&self, batch: &[Item<'_>]) -> Result<Vec<Outcome>> {
        if batch[0].entity.name == "contact" {
            self.waits.add_permits(1);
            self.gate.acquire().await.expect("open").forget();
        }
        self.target.apply(batch).await
    }
    async fn find(&self, entity: &Entity, keys: &[&CanonicalKey]) -> Result<Vec<Option<Found>>> {
        self.target.find(entity, keys).await
    }
    async fn read(&self, entity: &Entity, ids: &[&TargetId]) -> Result<Vec<Option<String>>> {
        self.target.read(entity, ids).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parent_that_comes_while_its_child_is_being_parked_is_seen() {
    let target = Target {
        ordered: true,
        ..Target::default()
    };
    let mut rig = Rig::new(target.clone());
    // Two contacts of one partition, so that they are in one batch: the target
    // holds the first while the parent of the second arrives.
    let partition = |id: &str| {
        let key = format!("fake/contact/{id}#main");
        partition_of(key.as_bytes(), PARTITIONS)
    };
    let child = (0..)
        .map(|n| format!("child{n}"))
        .find(|id| partition(id) == partition("free"))
        .expect("there is one");
    rig.source.add("contact", "free", 1, name("free"));
    let body = serde_json::json!({"name": "child", "parent": "late"}).to_string();
    rig.source.add("contact", &child, 1, Some(body));
    extract(&mut rig);
    transform(&mut rig);
    let contacts = rig.topics.canonical("contact");
    rig.until("the contacts", |rig| log(rig, &contacts).len() == 2)
        .await;
    let gated = Gated {
        target,
        waits: Arc::new(Semaphore::new(0)),
        gate: Arc::new(Semaphore::new(0)),
    };
    load(&mut rig, gated.clone());
    let called = tokio::time::timeout(Duration::from_secs(30), gated.waits.acquire());
    called.await.expect("a call").expect("open").forget();
    assert!(rig.parked().is_empty(), "the child is not parked yet");
    rig.source.add("company", "late", 1, name("late"));
    rig.until("the parent", |rig| {
        rig.entries().contains_key("fake/company/late#main")
    })
    .await;
    gated.gate.add_permits(100);
    let key = format!("fake/contact/{child}#main");
    rig.until("the child", |rig| {
        rig.rows().contains_key(&key) && rig.parked().is_empty()
    })
    .await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_found_parked_at_a_start_is_looked_at() {
    // A child with its parent's entry beside it, as a loader leaves them that
    // dies between two transactions; no canonical record leads to the child.
    let mut before = Rig::new(Target::default());
    let body = serde_json::json!({"name": "child", "parent": "p"}).to_string();
    before.source.add("contact", "child", 1, Some(body));
    before.source.add("company", "p", 1, name("parent"));
    before.run();
    let (child, parent) = ("fake/contact/child#main", "fake/company/p#main");
    before
        .until("both", |rig| {
            let entries = rig.entries();
            let done = |key| entries.get(key).is_some_and(|e| e.state == State::Applied);
            done(child) && done(parent)
        })
        .await;
    let entry = before.entries()[parent].clone();
    let order = before.entries()[child].order;
    let value = log(&before, &before.topics.canonical("contact"))
        .remove(0)
        .1;
    before.end().await;

    let mut rig = Rig::new(Target::default());
    let parked = Parked::new(
        Reason::Parent {
            parent: CanonicalKey::parse(parent).expect("a key"),
        },
        "contact",
        order,
        1,
        &value,
    );
    let entry = serde_json::to_vec(&entry).expect("JSON");
    let (table, waiting) = (rig.topics.idempotency(), rig.topics.parked());
    tokio::task::block_in_place(|| {
        let producer = PlainProducer::open(&rig.client()).expect("a producer");
        for record in [
            Record::new(&table, parent.as_bytes(), Some(&entry)),
            Record::new(&waiting, child.as_bytes(), Some(&parked.to_json())),
        ] {
            producer.send(record).expect("sent");
        }
        producer.flush(Duration::from_secs(10)).expect("durable");
    });
    let target = rig.target.clone();
    load(&mut rig, target);
    rig.until("the child", |rig| {
        rig.rows().contains_key(child) && rig.parked().is_empty()
    })
    .await;
    rig.end().await;
}

/// A member that notes what it is assigned.
#[derive(Default)]
struct Noting {
    assigned: std::sync::Mutex<Vec<usize>>,
}

impl Rebalance for Noting {
    fn assigned(&self, assignment: &Assignment) -> Result<()> {
        let partitions = assignment.starts.len();
        self.assigned.lock().expect("lock").push(partitions);
        Ok(())
    }

    fn revoked(&self) {}
}

/// A lane that is full pauses its partitions; when others come and go meanwhile,
/// the client keeps the pause of those that come back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_was_paused_is_read_again_after_a_rebalance() {
    let rig = Rig::new(Target::default());
    let topic = rig.topics.raw("company", false);
    tokio::task::block_in_place(|| {
        let producer = PlainProducer::open(&rig.client()).expect("a producer");
        for partition in 0..PARTITIONS {
            let record = Record {
                partition: Some(partition),
                ..Record::new(&topic, b"k", Some(b"v"))
            };
            producer.send(record).expect("sent");
        }
        producer.flush(Duration::from_secs(10)).expect("durable");
        let join = |instance: &str| {
            let noting = Arc::new(Noting::default());
            let handler = Arc::clone(&noting) as Arc<dyn Rebalance>;
            let topics = [topic.clone()];
            let member = Member::join(&rig.client(), "g", instance, &topics, handler);
            (member.expect("a member"), noting)
        };
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        let (one, noting) = join("one");
        let poll = |member: &Member| {
            assert!(std::time::Instant::now() < deadline, "nothing within 60 s");
            matches!(
                member.poll(Duration::from_millis(50)),
                Ok(Polled::Message(_))
            )
        };
        while !poll(&one) {}
        one.pause(&one.assigned()).expect("a pause");
        // Another one takes some of them, and the rest comes back.
        let (other, _) = join("other");
        while noting.assigned.lock().expect("lock").len() < 2 {
            poll(&one);
            poll(&other);
        }
        let back = *noting.assigned.lock().expect("lock").last().expect("one");
        assert!(back > 0 && back < PARTITIONS as usize, "{back}");
        while !poll(&one) {
            poll(&other);
        }
    });
}

/// A broker that is fenced for a while keeps its topics, and nobody must be told
/// that they are gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_without_a_leader_is_not_missing() {
    let rig = Rig::new(Target::default());
    let topic = rig.topics.raw("company", false);
    let Broker::Mock(cluster) = &rig.broker else {
        panic!("a real broker does as it likes");
    };
    tokio::task::block_in_place(|| {
        let ask = |topic: &str| watermarks(&rig.client(), &Place::new(topic, 0));
        let code = |topic: &str| ask(topic).err().map(|error| error.code);
        cluster
            .partition_leader(&topic, 0, None)
            .expect("no leader");
        let error = ask(&topic).expect_err("nobody can tell");
        assert_eq!(error.class(), drover_pipeline::Class::Transient, "{error}");
        assert_eq!(code("nowhere"), Some(Code::TopicMissing));
        cluster
            .partition_leader(&topic, 0, Some(1))
            .expect("a leader");
        assert_eq!(code(&topic), None);
    });
}

/// What a tail tells: keys, and that it went back.
#[derive(Default)]
struct Told(std::sync::Mutex<Vec<String>>);

impl Follower for Told {
    fn record(&self, place: &Place, offset: i64, _: &[u8], _: Option<&[u8]>) {
        let told = format!("{}@{offset}", place.partition);
        self.0.lock().expect("lock").push(told);
    }
    fn sought(&self, place: &Place) {
        let back = format!("{} back", place.partition);
        self.0.lock().expect("lock").push(back);
    }
    fn failed(&self, error: Error) {
        panic!("{error}");
    }
}

/// A loader's reader of the tables rests where only that loader writes. Once the
/// partition is lost everything behind our last commit must be told, and the
/// rest of another partition must not stop this one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_that_rested_tells_everything_from_where_it_goes_back_to() {
    let rig = Rig::new(Target::default());
    let topic = rig.topics.idempotency();
    let (ours, other) = (Place::new(&topic, 0), Place::new(&topic, 1));
    let patience = Duration::from_secs(30);
    tokio::task::block_in_place(|| {
        let producer = PlainProducer::open(&rig.client()).expect("a producer");
        let write = |partition: i32, records: usize| {
            for _ in 0..records {
                let record = Record {
                    partition: Some(partition),
                    ..Record::new(&topic, b"k", Some(b"v"))
                };
                producer.send(record).expect("sent");
            }
            producer.flush(patience).expect("durable");
        };
        write(0, 2);
        let told = Arc::new(Told::default());
        let follower = Arc::clone(&told) as Arc<dyn Follower>;
        let tail =
            Tail::start(&rig.client(), std::slice::from_ref(&topic), follower).expect("a tail");
        tail.wait_for(&ours, 2, patience).expect("told");
        for round in 0..3 {
            let end = 2 + round * 4;
            tail.rest(ours.clone());
            write(1, 1);
            tail.wait_for(&other, round + 1, patience)
                .expect("the other one is read on");
            // It rests from here on: the tail took that before it read the other.
            write(0, 4);
            let before = told.0.lock().expect("lock").len();
            tail.seek(&ours, end - 1);
            tail.wait_for(&ours, end + 4, patience).expect("told again");
            let heard = told.0.lock().expect("lock")[before..].to_vec();
            let mut expected = vec!["0 back".to_owned()];
            expected.extend((end - 1..end + 4).map(|offset| format!("0@{offset}")));
            assert_eq!(heard, expected);
        }
    });
}
