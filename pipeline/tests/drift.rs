//! A source whose description changes while its lane runs, on the mock broker.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use drover_pipeline::config::{KafkaConfig, Mappings, MigrationConfig, Problem, Secret};
use drover_pipeline::control::Plan;
use drover_pipeline::extract::drift::{Drift, Policy, Rules};
use drover_pipeline::extract::{
    Change, Discovery, Extractor, Ids, Object, Page, Reached, SourceField,
};
use drover_pipeline::http::HttpClient;
use drover_pipeline::kafka::client::Client;
use drover_pipeline::process::Context;
use drover_pipeline::quota::{Meter, Terms};
use drover_pipeline::record::Op;
use drover_pipeline::spec::Stage;
use drover_pipeline::status::{Phase, Status};
use drover_pipeline::topics::Topics;
use drover_pipeline::transform::{FieldRule, Mapping, ObjectMapping, Slot};
use drover_pipeline::{Code, Error, Result};
use rdkafka::mocking::MockCluster;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What the source shows, and what was asked of it.
#[derive(Default)]
struct Org {
    /// The fields of its one object; nothing where that is hidden.
    shown: Option<Vec<SourceField>>,
    /// Of each read, the fields that were asked for and from where.
    reads: Vec<(Vec<String>, usize)>,
    /// A custom object that it has since.
    new: Option<&'static str>,
    /// How often it was asked how it describes itself.
    looks: usize,
}

#[derive(Clone, Default)]
struct Source(Arc<Mutex<Org>>);

impl Source {
    fn org(&self) -> MutexGuard<'_, Org> {
        self.0.lock().expect("lock")
    }

    fn show(&self, fields: &[&str]) {
        self.org().shown = Some(fields.iter().map(|name| field(name)).collect());
    }
}

fn field(name: &str) -> SourceField {
    SourceField {
        name: name.to_owned(),
        kind: "string".to_owned(),
        ..SourceField::default()
    }
}

impl Extractor for Source {
    const NAME: &'static str = "fake";
    type Config = ();
    type Cursor = usize;

    fn mapping() -> &'static str {
        ""
    }
    fn new((): (), _: HttpClient) -> Result<Self, Vec<Problem>> {
        Ok(Source::default())
    }
    async fn check(&self) -> Result<()> {
        Ok(())
    }
    async fn discover(&self, _named: &[String]) -> Result<Discovery> {
        self.org().looks += 1;
        let object = |fields: &Vec<SourceField>| Object {
            name: "contact".into(),
            fields: fields.clone(),
            ..Object::default()
        };
        let org = self.org();
        let new = org.new.map(|name| Object {
            name: name.to_owned(),
            custom: true,
            ..Object::default()
        });
        Ok(Discovery {
            objects: org.shown.iter().map(object).chain(new).collect(),
            quota: None,
        })
    }
    async fn fetch(&self, object: &Object, from: Option<&usize>) -> Result<Page<usize>> {
        let mut org = self.org();
        let at = from.copied().unwrap_or(0);
        let asked: Vec<String> = object.fields.iter().map(|f| f.name.clone()).collect();
        let Some(shown) = &org.shown else {
            return Err(Error::new(Code::UnknownObject, "no such object"));
        };
        let shown = |name: &String| shown.iter().any(|field| field.name == *name);
        if let Some(unknown) = asked.iter().find(|name| !shown(name)) {
            return Err(Error::new(Code::UnknownField, format!("no {unknown}")));
        }
        let body = format!("{{\"fields\":{asked:?}}}");
        org.reads.push((asked, at));
        let change = Change {
            id: "1".into(),
            op: Op::Upsert,
            version: 1,
            body: Some(body),
        };
        Ok(Page {
            changes: if at == 0 { vec![change] } else { Vec::new() },
            bad: Vec::new(),
            next: 1,
            reached: Reached::Now { as_of: 1 },
            snapshot_complete: true,
            notice: None,
        })
    }
    fn again(&self, _: &usize) -> Option<usize> {
        Some(0)
    }
    async fn get(&self, _: &Object, ids: &[&str]) -> Result<Vec<Option<Change>>> {
        Ok(ids.iter().map(|_| None).collect())
    }
    async fn ids(&self, _: &Object, _: Option<&str>) -> Result<Ids> {
        Ok(Ids {
            ids: Vec::new(),
            next: None,
        })
    }
}

/// An extractor at work, whose mapping reads `Email`.
struct Rig {
    _cluster: MockCluster<'static, rdkafka::producer::DefaultProducerContext>,
    source: Source,
    context: Context,
    work: JoinHandle<Result<()>>,
}

fn context(cluster: &str, rules: Rules) -> Context {
    let config = MigrationConfig {
        id: "m".into(),
        tenant_id: "t".into(),
        source_type: "fake".into(),
        source_config: Secret::default(),
        target_type: "fake".into(),
        target_config: Secret::default(),
        dry_run: false,
        mappings: Mappings::default(),
        objects: Vec::new(),
        poll_interval_ms: 20,
        drift: Drift {
            every: Duration::from_millis(20),
            rules,
            objects: BTreeMap::new(),
        },
        kafka: KafkaConfig {
            brokers: cluster.to_owned(),
            partitions: 1,
            replication: None,
            client: BTreeMap::new(),
        },
        object_store: None,
    };
    let slot = Slot {
        entity: "contact".into(),
        fields: [("email".to_owned(), FieldRule::From("Email".into()))].into(),
        ..Slot::default()
    };
    let mapping = ObjectMapping {
        slots: [("main".to_owned(), slot)].into(),
        ..ObjectMapping::default()
    };
    let plan = Plan {
        generation: 1,
        mapping: Mapping {
            objects: [("contact".to_owned(), mapping)].into(),
            custom_objects: None,
        },
        objects: vec![Object {
            name: "contact".into(),
            fields: vec![field("Email"), field("Old")],
            ..Object::default()
        }],
        entities: vec!["contact".into()],
        ..Plan::default()
    };
    Context {
        topics: Topics::of(&config),
        client: Client::new(&config.kafka, "test"),
        plan,
        status: Status::new(Stage::Extractor, "fake", "e", "none").expect("a status"),
        meter: Arc::default(),
        bodies: None,
        instance: "e".into(),
        owner: "e".into(),
        stop: CancellationToken::new(),
        patience: Duration::from_secs(30),
        config,
    }
}

impl Rig {
    fn start(rules: Rules) -> Rig {
        Rig::start_with(rules, |_| {})
    }

    fn start_with(rules: Rules, account: impl FnOnce(&Meter)) -> Rig {
        let cluster = MockCluster::new(1).expect("a mock broker");
        let context = context(&cluster.bootstrap_servers(), rules);
        account(&context.meter);
        for topic in context.topics.all([("contact", false)], ["contact"]) {
            let created = cluster.create_topic(&topic.name, topic.partitions, 1);
            created.expect("a topic");
        }
        let source = Source::default();
        source.show(&["Email", "Old"]);
        let work = drover_pipeline::extract::run(source.clone(), context.clone());
        Rig {
            _cluster: cluster,
            source,
            work: tokio::spawn(work),
            context,
        }
    }

    async fn until(&self, what: &str, holds: impl Fn(&Rig) -> bool) {
        for _ in 0..600 {
            if holds(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let report = self.context.status.report();
        panic!(
            "{what}: not within 12 s; {report:?}; {:?}",
            self.source.org().reads
        );
    }

    fn phase(&self) -> Option<Phase> {
        let report = self.context.status.report();
        report.lanes.get("contact").map(|lane| lane.phase)
    }

    fn has_read(&self, fields: &[&str], at: usize) -> bool {
        let org = self.source.org();
        org.reads
            .iter()
            .any(|(asked, from)| *asked == fields && *from == at)
    }

    fn told(&self) -> Vec<String> {
        self.context.status.report().remarks.into_keys().collect()
    }

    async fn stop(&mut self) {
        self.context.stop.cancel();
        let ended = (&mut self.work).await.expect("no panic");
        ended.expect("a clean end");
    }
}

/// A new field is read of all records, once, and by the next process too; one
/// that the mapping does not read may go; a person sees both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_field_is_read_of_all_records() {
    let mut rig = Rig::start(Rules::default());
    rig.until("the copy", |rig| rig.has_read(&["Email", "Old"], 1))
        .await;
    rig.source.show(&["Email", "New"]);
    rig.until("all of it", |rig| rig.has_read(&["Email", "New"], 0))
        .await;
    rig.until("changes", |rig| rig.has_read(&["Email", "New"], 1))
        .await;
    assert_eq!(
        rig.told(),
        [
            "contact.New: the source has a new field (read from now on, of all records)",
            "contact.Old: the source no longer shows the field, or this user may not see it \
             (left out from now on)"
        ]
    );
    rig.stop().await;
    rig.source.show(&["Email", "Old", "New"]);
    rig.source.org().reads.clear();
    rig.context.stop = CancellationToken::new();
    let mut context = rig.context.clone();
    // No look comes before its first read.
    context.config.drift.every = Duration::from_secs(3_600);
    rig.work = tokio::spawn(drover_pipeline::extract::run(rig.source.clone(), context));
    rig.until("the changes", |rig| !rig.source.org().reads.is_empty())
        .await;
    let first = rig.source.org().reads[0].clone();
    let fields = ["Email", "Old", "New"].map(str::to_owned).to_vec();
    assert_eq!(first, (fields, 1), "not all records again");
    // It is refused, and asks what it may read: no trouble, as the rules allow it.
    rig.source.show(&["Email", "New"]);
    rig.until("without it", |rig| rig.has_read(&["Email", "New"], 1))
        .await;
    assert_eq!(rig.context.status.report().last_error, None);
    rig.stop().await;
}

/// A field that the mapping reads is hidden: the lane stops, and says which.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mapped_field_that_goes_stops_the_lane() {
    let rig = Rig::start(Rules::default());
    rig.until("the copy", |rig| rig.has_read(&["Email", "Old"], 1))
        .await;
    rig.source.show(&["Old"]);
    rig.until("the stop", |rig| rig.phase() == Some(Phase::Blocked))
        .await;
    let report = rig.context.status.report();
    let error = report.lanes["contact"].error.clone().expect("why");
    assert!(error.starts_with("SOURCE_CHANGED: "), "{error}");
    assert!(error.contains("contact.Email"), "{error}");
    let ended = rig
        .work
        .await
        .expect("no panic")
        .expect_err("the only lane");
    assert_eq!(ended.code, Code::SourceChanged);
}

/// What is back is asked for once, by the process that saw it go and by the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_field_that_was_hidden_is_asked_for_once() {
    let mut rig = Rig::start(Rules::default());
    rig.until("the copy", |rig| rig.has_read(&["Email", "Old"], 1))
        .await;
    for _ in 0..2 {
        rig.source.show(&["Email"]);
        rig.source.org().reads.clear();
        rig.until("without it", |rig| rig.has_read(&["Email"], 1))
            .await;
        rig.source.show(&["Email", "Old"]);
        rig.until("all of it", |rig| rig.has_read(&["Email", "Old"], 0))
            .await;
        rig.until("changes", |rig| rig.has_read(&["Email", "Old"], 1))
            .await;
    }
    // Only what holds now.
    let told = "contact.Old: the source has a new field (read from now on, of all records)";
    assert_eq!(rig.told(), [told]);
    rig.stop().await;
    rig.source.org().reads.clear();
    rig.context.stop = CancellationToken::new();
    let mut context = rig.context.clone();
    // No look comes before its first read.
    context.config.drift.every = Duration::from_secs(3_600);
    rig.work = tokio::spawn(drover_pipeline::extract::run(rig.source.clone(), context));
    rig.until("the changes", |rig| !rig.source.org().reads.is_empty())
        .await;
    let first = rig.source.org().reads[0].clone();
    assert_eq!(first, (["Email", "Old"].map(str::to_owned).to_vec(), 1));
    rig.stop().await;
}

/// A parked lane waits while its object is hidden and goes on when it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_lane_goes_on_by_itself() {
    let mut rig = Rig::start(Rules {
        removed: Some(Policy::Park),
        ..Rules::default()
    });
    rig.until("the copy", |rig| rig.has_read(&["Email", "Old"], 1))
        .await;
    rig.source.org().shown = None;
    rig.until("the wait", |rig| {
        let report = rig.context.status.report();
        let error = report
            .lanes
            .get("contact")
            .and_then(|lane| lane.error.clone());
        error.is_some_and(|error| error.starts_with("SOURCE_CHANGED: "))
    })
    .await;
    assert_eq!(rig.phase(), Some(Phase::Degraded));
    rig.source.org().reads.clear();
    rig.source.show(&["Email", "Old"]);
    rig.until("it goes on", |rig| rig.has_read(&["Email", "Old"], 1))
        .await;
    rig.until("it runs", |rig| rig.phase() == Some(Phase::Running))
        .await;
    rig.stop().await;
}

/// A lane whose object may go is told, asks for nothing while it is hidden, counts as
/// read, and goes on when it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_rests_whose_object_may_go() {
    for policy in [Policy::Ignore, Policy::Apply] {
        let mut rig = Rig::start(Rules {
            removed: Some(policy),
            ..Rules::default()
        });
        rig.until("the copy", |rig| rig.has_read(&["Email", "Old"], 1))
            .await;
        let hidden = drover_pipeline::status::now();
        rig.source.org().shown = None;
        let told = "contact: the source no longer shows the object, or this user may not see it \
                    (not asked for until it is back)";
        rig.until("it is told", |rig| rig.told().iter().any(|one| one == told))
            .await;
        rig.until("it counts as read", |rig| {
            let seen = rig.context.status.report().seen;
            seen.get("contact").is_some_and(|seen| *seen >= hidden)
        })
        .await;
        assert_eq!(rig.phase(), Some(Phase::Running), "{policy:?}");
        rig.source.org().reads.clear();
        rig.source.show(&["Email", "Old"]);
        rig.until("it goes on", |rig| rig.has_read(&["Email", "Old"], 1))
            .await;
        rig.stop().await;
    }
}

/// A person hears of a custom object that is new; nothing reads it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_object_is_told() {
    let mut rig = Rig::start(Rules::default());
    rig.source.org().new = Some("Invoice__c");
    let told = "Invoice__c: the source has a new object (not migrated)";
    rig.until("it is told", |rig| rig.told().iter().any(|one| one == told))
        .await;
    assert_eq!(rig.phase(), Some(Phase::Running));
    rig.stop().await;
}

/// An object is asked for changes only as often as the account's calls last, and
/// as often as the file says once there are more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scarce_quota_stretches_the_polls() {
    let mut rig = Rig::start_with(Rules::default(), |meter| {
        meter.terms(Terms {
            account: "acme".to_owned(),
            reserve_percent: 20,
            records_per_call: 2_000,
            large: None,
            calls_per_poll: 2,
        });
        meter.told(1_000, 900);
    });
    rig.until("the copy", |rig| !rig.source.org().reads.is_empty())
        .await;
    // The source is asked to describe itself as often as the file asks for polls.
    let looks = rig.source.org().looks + 50;
    rig.until("looks", |rig| rig.source.org().looks > looks)
        .await;
    let reads = rig.source.org().reads.len();
    assert_eq!(reads, 1, "700 calls last for 318 polls a day");
    let polls = rig.context.meter.usage().and_then(|usage| usage.polls);
    let polls = polls.expect("it polls");
    assert_eq!((polls.objects, polls.asked_ms), (1, 20));
    assert!(polls.interval_ms > 200_000, "{polls:?}");
    rig.context.meter.told(1_000_000_000, 1_000_000_000);
    rig.until("more", |rig| rig.source.org().reads.len() > 5)
        .await;
    rig.stop().await;
}
