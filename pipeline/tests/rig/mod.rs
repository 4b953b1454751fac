//! A migration with its three stages running in the test, between a source and a
//! target that keep everything in memory.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use drover_pipeline::config::{KafkaConfig, Mappings, MigrationConfig, Problem, Secret};
use drover_pipeline::control::Plan;
use drover_pipeline::deadletter::DeadLetter;
use drover_pipeline::envelope::Envelope;
use drover_pipeline::extract::{Change, Discovery, Extractor, Ids, Object, Page, Reached};
use drover_pipeline::http::HttpClient;
use drover_pipeline::idempotency::{Entry, Identity, Lease, TargetId};
use drover_pipeline::kafka::client::Client;
use drover_pipeline::kafka::compacted::read_to_end;
use drover_pipeline::kafka::producer::{PlainProducer, Record};
use drover_pipeline::load::{Applied, EntitySupport, Found, Item, Loader, Outcome, Write};
use drover_pipeline::parking::Parked;
use drover_pipeline::process::Context;
use drover_pipeline::record::{AbsentReason, CanonicalKey, Op, Told};
use drover_pipeline::spec::Stage;
use drover_pipeline::status::{Counts, Lane, Status};
use drover_pipeline::topics::{Topic, Topics};
use drover_pipeline::transform::{
    Convert, FieldRule, Mapping, ObjectMapping, Outputs, Slot, Transformer,
};
use drover_pipeline::{Code, Error, Result};
use drover_schemas::{Datum, Entity, Value};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;
pub(crate) const PARTITIONS: i32 = 2;

/// Records of the fake source: `company/n`, and `contact/n` that refer to them.
#[derive(Clone, Default)]
pub(crate) struct Source {
    pub(crate) changes: Arc<Mutex<HashMap<String, Vec<Change>>>>,
    /// Up to when it says that it was read.
    pub(crate) as_of: Arc<AtomicI64>,
    /// An object whose first copy does not end.
    pub(crate) endless: Arc<Mutex<Option<&'static str>>>,
    /// Records of a page, where they are not a few.
    pub(crate) page: Option<usize>,
}

/// An object as the source describes it, then and now.
pub(crate) fn described(name: &str) -> Object {
    Object {
        name: name.into(),
        ..Object::default()
    }
}

impl Source {
    pub(crate) fn add(&self, object: &str, id: &str, version: i64, body: Option<String>) {
        self.changes
            .lock()
            .expect("lock")
            .entry(object.to_owned())
            .or_default()
            .push(Change {
                id: id.to_owned(),
                op: if body.is_some() {
                    Op::Upsert
                } else {
                    Op::Delete
                },
                version,
                body,
            });
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
    async fn discover(&self, named: &[String]) -> Result<Discovery> {
        let objects = named.iter().map(|name| described(name)).collect();
        Ok(Discovery {
            quota: None,
            objects,
        })
    }
    async fn fetch(&self, object: &Object, from: Option<&usize>) -> Result<Page<usize>> {
        let at = from.copied().unwrap_or(0);
        let all = self.changes.lock().expect("lock");
        let all = all.get(&object.name).map(Vec::as_slice).unwrap_or_default();
        let end = (at + self.page.unwrap_or(7)).min(all.len());
        let complete = end == all.len();
        let endless = *self.endless.lock().expect("lock") == Some(object.name.as_str());
        if complete && endless {
            return Ok(Page {
                changes: all[at..end].to_vec(),
                bad: Vec::new(),
                next: end,
                reached: Reached::Later(Duration::from_millis(50)),
                notice: None,
                snapshot_complete: false,
            });
        }
        Ok(Page {
            changes: all[at..end].to_vec(),
            bad: Vec::new(),
            next: end,
            reached: if complete {
                Reached::Now {
                    as_of: self.as_of.load(Ordering::SeqCst),
                }
            } else {
                Reached::More
            },
            snapshot_complete: complete,
            notice: None,
        })
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

/// Maps `{"name":…,"parent":…}`; a body `"bad"` is a dead letter.
pub(crate) struct Fake;

impl Transformer for Fake {
    const NAME: &'static str = "fake";

    fn new(_: &Mapping, _: &[Object]) -> Result<Self, Vec<Problem>> {
        Ok(Fake)
    }

    fn write<'t>(&'t self, record: &Envelope<'_>, out: &mut Outputs<'t>) -> Result<()> {
        let entity = entity_of(record.object);
        let Some(body) = record.body else {
            out.absent("main", entity, AbsentReason::Deleted);
            return Ok(());
        };
        let body: serde_json::Value =
            serde_json::from_slice(body).map_err(|_| Error::new(Code::InvalidBody, "no JSON"))?;
        let mut datum = Datum::empty(entity);
        let name = if record.object == "company" {
            "name"
        } else {
            "lastName"
        };
        let (place, _) = entity.field(name).expect("a name");
        datum.values[place] = Value::String(body["name"].as_str().expect("text").to_owned().into());
        for (from, to, slot) in [
            ("parent", "companyId", "fake/company"),
            ("manager", "managerId", "fake/contact"),
            ("boss", "managerId", "fake/boss"),
        ] {
            if let Some(id) = body[from].as_str() {
                let (place, _) = entity.field(to).expect("a reference");
                datum.values[place] = Value::Reference(format!("{slot}/{id}#main").into());
            }
        }
        out.upsert("main", entity, |bytes| {
            datum.encode(bytes);
            Told::default()
        });
        Ok(())
    }
}

/// `company` is a company; `contact` and `boss` are contacts.
pub(crate) fn entity_of(object: &str) -> &'static Entity {
    let name = match object {
        "boss" => "contact",
        other => other,
    };
    drover_schemas::entity(name).expect("an entity")
}

/// A row of the fake target: name, links by field, deleted.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub(crate) key: String,
    pub(crate) name: String,
    pub(crate) links: BTreeMap<String, TargetId>,
    pub(crate) deleted: bool,
}

#[derive(Clone, Default)]
pub(crate) struct Target {
    pub(crate) rows: Arc<Mutex<BTreeMap<TargetId, Row>>>,
    pub(crate) creates: Arc<AtomicU64>,
    /// The next apply has its effect, and the answer is lost.
    pub(crate) lose_answer: Arc<AtomicBool>,
    /// What it refuses otherwise is taken.
    pub(crate) lenient: Arc<AtomicBool>,
    /// Every call that concerns companies fails in this way.
    pub(crate) trouble: Arc<Mutex<Option<Code>>>,
    /// The key of every record that was sent to it, in order.
    pub(crate) sent: Arc<Mutex<Vec<String>>>,
    pub(crate) ordered: bool,
    /// Records of a batch, where they are not a few.
    pub(crate) batch: Option<usize>,
    /// How long a request may be on its way, where that is not short.
    pub(crate) lease: Option<Duration>,
}

impl Loader for Target {
    const NAME: &'static str = "fake";
    type Config = ();

    fn new((): (), _: HttpClient) -> Result<Self, Vec<Problem>> {
        Ok(Target::default())
    }
    fn entities(&self) -> Vec<EntitySupport> {
        ["company", "contact"]
            .map(|entity| EntitySupport {
                entity: entity.into(),
                batch: self.batch.unwrap_or(5),
                concurrency: 1,
                lease: Lease {
                    identity: if self.ordered {
                        Identity::Upsert
                    } else {
                        Identity::Find
                    },
                    length: self.lease.unwrap_or(Duration::from_millis(300)),
                },
                ordered: self.ordered,
            })
            .into()
    }
    async fn check(&self) -> Result<()> {
        Ok(())
    }
    async fn plan(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
    async fn prepare(&self) -> Result<()> {
        Ok(())
    }
    async fn apply(&self, batch: &[Item<'_>]) -> Result<Vec<Outcome>> {
        let trouble = *self.trouble.lock().expect("lock");
        if let Some(code) = trouble.filter(|_| batch[0].entity.name == "company") {
            return Err(Error::new(code, "companies are in trouble"));
        }
        let keys = batch.iter().map(|item| item.key.to_string());
        self.sent.lock().expect("lock").extend(keys);
        let mut rows = self.rows.lock().expect("lock");
        let lost = self.lose_answer.swap(false, Ordering::SeqCst);
        let outcomes = batch
            .iter()
            .map(|item| {
                let key = item.key.as_str().to_owned();
                match &item.write {
                    Write::Delete { .. } => {
                        if let Some(row) = item.target_id.and_then(|id| rows.get_mut(id)) {
                            row.deleted = true;
                        }
                        Outcome::Applied(Applied {
                            id: item.target_id.cloned(),
                            created: false,
                            newer: false,
                        })
                    }
                    Write::Upsert { datum, links } => {
                        let name = datum
                            .values
                            .iter()
                            .find_map(|value| match value {
                                Value::String(text) => Some(text.to_string()),
                                _ => None,
                            })
                            .unwrap_or_default();
                        if name == "refuse me" && !self.lenient.load(Ordering::SeqCst) {
                            return Outcome::Rejected(Error::new(Code::TargetRefused, "refused"));
                        }
                        let (id, created) = match item.target_id {
                            Some(id) => (id.clone(), false),
                            None => {
                                let n = self.creates.fetch_add(1, Ordering::SeqCst);
                                (format!("t{n}"), true)
                            }
                        };
                        let links = links
                            .iter()
                            .map(|(field, id)| {
                                (item.entity.fields[*field].name.clone(), id.clone())
                            })
                            .collect();
                        rows.insert(
                            id.clone(),
                            Row {
                                key,
                                name,
                                links,
                                deleted: false,
                            },
                        );
                        Outcome::Applied(Applied {
                            id: Some(id),
                            created,
                            newer: false,
                        })
                    }
                }
            })
            .map(|outcome| match outcome {
                Outcome::Applied(_) if lost => {
                    Outcome::Unknown(Error::new(Code::AnswerLost, "lost"))
                }
                other => other,
            })
            .collect();
        Ok(outcomes)
    }
    async fn find(&self, _: &Entity, keys: &[&CanonicalKey]) -> Result<Vec<Option<Found>>> {
        let rows = self.rows.lock().expect("lock");
        Ok(keys
            .iter()
            .map(|key| {
                rows.iter()
                    .find(|(_, row)| row.key == key.as_str())
                    .map(|(id, _)| Found {
                        id: id.clone(),
                        order: None,
                    })
            })
            .collect())
    }
    async fn read(&self, _: &Entity, ids: &[&TargetId]) -> Result<Vec<Option<String>>> {
        Ok(ids.iter().map(|_| None).collect())
    }
}

/// A migration with its stages running.
pub(crate) struct Rig {
    pub(crate) broker: Broker,
    pub(crate) config: MigrationConfig,
    pub(crate) topics: Topics,
    pub(crate) plan: Plan,
    pub(crate) source: Source,
    pub(crate) target: Target,
    pub(crate) stop: CancellationToken,
    pub(crate) stages: Vec<tokio::task::JoinHandle<Result<()>>>,
    /// What the loader says of itself.
    pub(crate) loader: Option<Arc<Status>>,
    /// How long a condition may take.
    pub(crate) patience: Duration,
}

impl Drop for Rig {
    /// The stages' threads end with a test that fails; it would hang otherwise.
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Rig {
    pub(crate) fn new(target: Target) -> Rig {
        Self::on(Broker::mock(), target, &["company", "contact"], |_| ())
    }

    /// On a real broker, where there is one.
    pub(crate) fn real(target: Target) -> Option<Rig> {
        let objects = ["company", "contact"];
        Some(Self::on(Broker::real()?, target, &objects, |_| ()))
    }

    /// With these objects, and a plan that differs.
    pub(crate) fn on(
        broker: Broker,
        target: Target,
        objects: &[&str],
        differs: impl FnOnce(&mut Plan),
    ) -> Rig {
        let id = RandomState::new().hash_one("a migration of this test alone");
        let config = MigrationConfig {
            id: format!("m-{id:016x}"),
            tenant_id: "t".into(),
            source_type: "fake".into(),
            source_config: Secret::default(),
            target_type: "fake".into(),
            target_config: Secret::default(),
            dry_run: false,
            mappings: Mappings::default(),
            objects: Vec::new(),
            poll_interval_ms: 50,
            drift: drover_pipeline::extract::drift::Drift::default(),
            kafka: KafkaConfig {
                brokers: broker.servers(),
                partitions: PARTITIONS,
                replication: None,
                client: BTreeMap::new(),
            },
            object_store: None,
        };
        let topics = Topics::of(&config);
        let entities = ["company", "contact"];
        let all: Vec<Topic> = topics
            .all(objects.iter().map(|o| (*o, false)), entities)
            .into_iter()
            .collect();
        broker.create(&all);
        let required = FieldRule::Rule(Convert {
            from: Some("parent".into()),
            reference: Some("company#main".into()),
            required: true,
            ..Convert::default()
        });
        let object = |entity: &str, fields: BTreeMap<String, FieldRule>| ObjectMapping {
            slots: BTreeMap::from([(
                "main".to_owned(),
                Slot {
                    entity: entity.into(),
                    fields,
                    ..Slot::default()
                },
            )]),
            ..ObjectMapping::default()
        };
        let mut plan = Plan {
            generation: 1,
            mapping: Mapping {
                objects: BTreeMap::from([
                    ("company".to_owned(), object("company", BTreeMap::new())),
                    (
                        "contact".to_owned(),
                        object(
                            "contact",
                            BTreeMap::from([("companyId".to_owned(), required)]),
                        ),
                    ),
                ]),
                custom_objects: None,
            },
            objects: objects.iter().map(|name| described(name)).collect(),
            entities: entities.map(str::to_owned).into(),
            incarnations: BTreeMap::new(),
            ..Plan::default()
        };
        differs(&mut plan);
        Rig {
            broker,
            config,
            topics,
            plan,
            source: Source::default(),
            target,
            stop: CancellationToken::new(),
            stages: Vec::new(),
            loader: None,
            patience: Duration::from_secs(30),
        }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(&self.config.kafka, "test")
    }

    pub(crate) fn context(&self, stage: Stage, instance: &str) -> Context {
        Context {
            config: self.config.clone(),
            topics: self.topics.clone(),
            client: self.client(),
            plan: self.plan.clone(),
            status: Status::new(stage, "fake", instance, "none").expect("a status"),
            meter: Arc::default(),
            bodies: None,
            instance: instance.into(),
            owner: instance.into(),
            // The mock broker does not tell what was committed in transactions, so
            // there a lane that waits is let go only because nothing moves.
            patience: match self.broker {
                Broker::Mock(_) => Duration::from_secs(2),
                Broker::Real(_) => Duration::from_secs(60),
            },
            stop: self.stop.clone(),
        }
    }

    pub(crate) fn run(&mut self) {
        self.stages = vec![
            tokio::spawn(drover_pipeline::extract::run(
                self.source.clone(),
                self.context(Stage::Extractor, "e"),
            )),
            tokio::spawn(drover_pipeline::transform::run::<Fake>(
                self.context(Stage::Transformer, "t"),
            )),
        ];
        self.load();
    }

    /// Runs a loader alone.
    pub(crate) fn load(&mut self) {
        let loader = self.context(Stage::Loader, "l");
        self.loader = Some(Arc::clone(&loader.status));
        let run = drover_pipeline::load::run(self.target.clone(), loader);
        self.stages.push(tokio::spawn(run));
    }

    /// Waits until the condition holds; fails with what the stages say.
    pub(crate) async fn until(&mut self, what: &str, holds: impl Fn(&Rig) -> bool) {
        for _ in 0..self.patience.as_millis() / 50 {
            if holds(self) {
                return;
            }
            for stage in &mut self.stages {
                if stage.is_finished() {
                    panic!("{what}: a stage ended: {:?}", stage.await);
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{what}: not within {:?}; {:?}", self.patience, self.rows());
    }

    pub(crate) async fn end(mut self) {
        self.stop().await;
    }

    /// Ends the stages; they can run again.
    pub(crate) async fn stop(&mut self) {
        self.stop.cancel();
        for stage in std::mem::take(&mut self.stages) {
            stage.await.expect("no panic").expect("a clean end");
        }
        self.stop = CancellationToken::new();
    }

    pub(crate) fn rows(&self) -> BTreeMap<String, Row> {
        let rows = self.target.rows.lock().expect("lock");
        rows.values()
            .map(|row| (row.key.clone(), row.clone()))
            .collect()
    }

    /// The newest value of each key of a compacted topic.
    fn table<T: DeserializeOwned>(&self, topic: &str) -> BTreeMap<String, T> {
        read_to_end(&self.client(), topic)
            .expect("the table")
            .into_iter()
            .map(|(key, value)| {
                let key = String::from_utf8(key).expect("UTF-8");
                (key, serde_json::from_slice(&value).expect("a value"))
            })
            .collect()
    }

    pub(crate) fn entries(&self) -> BTreeMap<String, Entry> {
        self.table(&self.topics.idempotency())
    }

    pub(crate) fn parked(&self) -> BTreeMap<String, Parked> {
        self.table(&self.topics.parked())
    }

    /// The live dead letters, by the key of the topic.
    pub(crate) fn dead(&self) -> BTreeMap<String, DeadLetter> {
        self.table(&self.topics.deadletter())
    }

    /// The live dead letters: code and message by key.
    pub(crate) fn causes(&self) -> BTreeMap<String, (String, String)> {
        self.dead()
            .into_values()
            .map(|letter| (letter.key, (letter.code, letter.message)))
            .collect()
    }

    /// What the loader counted for an object.
    pub(crate) fn counts(&self, object: &str) -> Counts {
        let report = self.loader.as_ref().expect("it runs").report();
        report.objects.get(object).copied().unwrap_or_default()
    }

    /// What a lane of the loader says of itself.
    pub(crate) fn lane(&self, entity: &str) -> Option<Lane> {
        let report = self.loader.as_ref().expect("it runs").report();
        report.lanes.get(entity).cloned()
    }

    /// Has the loader judge a record again, as `drover` does.
    pub(crate) fn try_again(&self, key: &str, envelope: &[u8]) {
        let producer = PlainProducer::open(&self.client()).expect("a producer");
        let topic = self.topics.redo();
        producer
            .send(Record::new(&topic, key.as_bytes(), Some(envelope)))
            .and_then(|()| producer.flush(Duration::from_secs(20)))
            .expect("Kafka takes it");
    }

    pub(crate) fn letters(&self) -> Vec<String> {
        read_to_end(&self.client(), &self.topics.deadletter())
            .expect("the table")
            .into_keys()
            .map(|key| String::from_utf8(key).expect("UTF-8"))
            .collect()
    }
}

pub(crate) fn name(name: &str) -> Option<String> {
    Some(serde_json::json!({ "name": name }).to_string())
}

/// A contact's body, with what it refers to.
pub(crate) fn contact(name: &str, refers: &[(&str, &str)]) -> Option<String> {
    let mut body = serde_json::json!({ "name": name });
    for (field, id) in refers {
        body[*field] = (*id).into();
    }
    Some(body.to_string())
}
