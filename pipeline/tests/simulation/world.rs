//! What is outside the workers: the logs and transactions of Kafka, the
//! consumer group, the target with requests on their way, and the clock.

use std::collections::BTreeMap;
use std::time::Duration;

use drover_pipeline::idempotency::{Entry, Identity, Lease, State};
use drover_pipeline::record::{Fingerprint, Order};

use crate::rules::{Rule, Rules};
use crate::worker::{Outcome, Parked, Worker};

/// The target's longest processing time, twice: a request leaves within half
/// of it and takes effect within the other half.
pub const LEASE: u64 = 20_000;
/// How far the search index of a target without a lookup lags behind.
pub const INDEX_DELAY: u64 = 15_000;
/// After this long the coordinator gives a silent member's partitions away.
pub const SESSION: u64 = 8_000;
/// After this long the broker aborts an open transaction.
pub const TRANSACTION_TIMEOUT: u64 = 10_000;
/// How long a revocation waits for the batches under way.
pub const REVOKE: u64 = 5_000;

/// The parents' lane.
pub const PARENTS: usize = 0;
/// The children's lane.
pub const CHILDREN: usize = 1;
/// The idempotency topic among the tables.
pub const IDEMPOTENCY: usize = 0;
/// The parked topic among the tables.
pub const PARKED: usize = 1;
/// The dead letters among the tables.
pub const LETTERS: usize = 2;
/// The redo topic among the tables.
pub const REDO: usize = 3;
/// How many tables there are.
pub const TABLES: usize = 4;
/// Who writes to the redo topic: nobody's worker.
const ORCHESTRATOR: usize = usize::MAX;
/// The most partitions of a history.
pub const MOST_PARTITIONS: usize = 2;

/// A key of the simulation.
pub type Key = usize;

/// What is fixed about a key.
pub struct KeySpec {
    /// Its name in the printed history.
    pub name: &'static str,
    /// Its entity, which is its lane.
    pub entity: usize,
    partition: usize,
    /// What it refers to, and whether it must wait for it.
    pub parent: Option<(Key, bool)>,
}

/// The keys. Children lie on another partition than their parents where there
/// are two, so that the owner of a child learns of the parent by its tail.
pub const KEYS: [KeySpec; 7] = [
    KeySpec {
        name: "parent-a",
        entity: PARENTS,
        partition: 0,
        parent: None,
    },
    KeySpec {
        name: "parent-b",
        entity: PARENTS,
        partition: 1,
        parent: None,
    },
    KeySpec {
        name: "child-of-b",
        entity: CHILDREN,
        partition: 0,
        parent: Some((1, true)),
    },
    KeySpec {
        name: "child-of-a",
        entity: CHILDREN,
        partition: 1,
        parent: Some((0, true)),
    },
    KeySpec {
        name: "link-to-b",
        entity: CHILDREN,
        partition: 0,
        parent: Some((1, false)),
    },
    // Each requires the other.
    KeySpec {
        name: "circle-a",
        entity: CHILDREN,
        partition: 0,
        parent: Some((6, true)),
    },
    KeySpec {
        name: "circle-b",
        entity: CHILDREN,
        partition: 1,
        parent: Some((5, true)),
    },
];

/// How the target finds what we wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It refuses a second create and an older version; no Pending is written.
    Ordered,
    /// A consistent lookup; a second create makes a second record.
    Find,
    /// A search index that lags; a second create makes a second record.
    None,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 3] = [Kind::Ordered, Kind::Find, Kind::None];
}

/// What is fixed about a history.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The target.
    pub kind: Kind,
    /// How many partitions each topic has.
    pub partitions: usize,
    /// How many workers there are.
    pub workers: usize,
    /// Which rules hold.
    pub rules: Rules,
}

/// What a source version says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// Its fingerprint.
    pub print: u8,
    /// The record is gone.
    pub absent: bool,
    /// The target refuses it.
    pub refused: bool,
    /// When the source wrote it.
    pub at: u64,
}

/// An item of a canonical partition.
#[derive(Debug, Clone, Copy)]
pub enum Canonical {
    /// A record.
    Record {
        /// Its key.
        key: Key,
        /// The source's version.
        version: i64,
        /// The mapping's generation.
        mapping: u32,
        /// What it says.
        content: Content,
    },
    /// The end of a transaction of the transformer.
    Marker,
}

/// A value of a table's log.
#[derive(Debug, Clone)]
pub enum Value {
    /// An entry, or its tombstone.
    Entry(Option<Entry>),
    /// A parked record, or its tombstone.
    Parked(Option<Parked>),
    /// A dead letter, or its tombstone.
    Letter(Option<Letter>),
    /// A record to apply again, or its tombstone.
    Redo(Option<Redone>),
}

impl Value {
    fn table(&self) -> usize {
        match self {
            Value::Entry(_) => IDEMPOTENCY,
            Value::Parked(_) => PARKED,
            Value::Letter(_) => LETTERS,
            Value::Redo(_) => REDO,
        }
    }
}

/// A dead letter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Letter {
    /// The record's order.
    pub order: Order,
    /// What it says.
    pub content: Content,
    /// The parent that never comes, where that is the cause.
    pub waits_for: Option<Key>,
}

/// A record to apply again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Redone {
    /// Its own order.
    pub order: Order,
    /// What it says.
    pub content: Content,
}

/// An item of a table's partition.
#[derive(Debug, Clone)]
pub enum Logged {
    /// A record of a transaction.
    Record {
        /// Which transaction wrote it.
        by: usize,
        /// Its key.
        key: Key,
        /// Its value.
        value: Box<Value>,
    },
    /// The end of a transaction in this partition.
    Marker,
}

/// A partition of a table.
#[derive(Debug, Default, Clone)]
pub struct Log {
    /// Its items, by offset.
    pub items: Vec<Logged>,
    /// The transactions without a marker here, and where each begins.
    open: Vec<(usize, usize)>,
}

impl Log {
    /// The offset that a `read_committed` reader can't pass.
    pub fn stable(&self) -> usize {
        self.open
            .iter()
            .map(|(_, at)| *at)
            .min()
            .unwrap_or(self.items.len())
    }
}

/// How a transaction stands at its coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Not decided.
    Open,
    /// Decided; its markers may still be missing.
    Committed,
    /// Given up; its markers may still be missing.
    Aborted,
}

/// A committed position: entity, partition, next offset.
pub type Next = (usize, usize, usize);

/// A transaction of a worker.
#[derive(Debug)]
pub struct Transaction {
    /// The worker's place.
    pub worker: usize,
    /// When it was opened.
    pub opened: u64,
    /// How it stands.
    pub fate: Fate,
    /// The partitions that wait for its marker.
    pub unmarked: Vec<(usize, usize)>,
    /// The offsets it sends, until their marker is written.
    pub offsets: Option<Vec<Next>>,
    records: Vec<(Key, Value)>,
}

impl Transaction {
    /// Whether nothing of it is under way any more.
    pub fn complete(&self) -> bool {
        self.fate != Fate::Open && self.unmarked.is_empty() && self.offsets.is_none()
    }
}

/// What a batch's member was when the batch began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// The member's id.
    pub member: u64,
    /// The group's generation.
    pub generation: u64,
}

/// A member of the group.
#[derive(Debug)]
pub struct Member {
    /// Its id; a restarted process gets a new one.
    pub id: u64,
    /// Whether it has joined the rebalance under way.
    pub joined: bool,
    /// Its partitions in this generation.
    pub partitions: Vec<usize>,
}

/// The group's coordinator.
#[derive(Debug, Default)]
pub struct Group {
    /// Grows with each rebalance.
    pub generation: u64,
    /// Whether a rebalance waits for its members.
    pub preparing: bool,
    /// The members by the worker's place.
    pub members: BTreeMap<usize, Member>,
    /// What a reader of committed offsets sees, by entity and partition.
    pub offsets: [[usize; MOST_PARTITIONS]; 2],
    /// What is decided, although markers may be missing.
    pub decided: [[usize; MOST_PARTITIONS]; 2],
    turn: usize,
    last_id: u64,
}

/// A request to the target.
#[derive(Debug)]
pub struct Request {
    /// Who sent it: the worker's place, its process, its lane, the batch, the item.
    pub sender: (usize, u64, usize, u64, usize),
    /// The record's key.
    pub key: Key,
    /// Its order.
    pub order: Order,
    /// What it says.
    pub content: Content,
    /// The target's id, where the sender knows one.
    pub id: Option<String>,
    /// Whether it carries the link to what its key refers to.
    pub linked: bool,
    /// When it was sent.
    pub sent: u64,
    /// Whether it will have no effect any more.
    pub over: bool,
    /// The answer, once it has taken effect.
    pub answer: Option<Outcome>,
    /// Whether the sender still waits.
    pub awaited: bool,
}

/// A record of the target.
#[derive(Debug)]
pub struct Row {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub key: Key,
    /// The order of its last write.
    pub order: Order,
    /// What it holds.
    pub content: Content,
    /// Whether it links to what its key refers to.
    pub linked: bool,
    created: u64,
}

/// What is true: everything decided, seen at once.
#[derive(Debug, Default)]
pub struct Truth {
    /// The entries.
    pub entries: [Option<Entry>; KEYS.len()],
    /// The parked records.
    pub parked: [Option<Parked>; KEYS.len()],
    /// The live dead letters.
    pub dead: [Option<Letter>; KEYS.len()],
    /// Records to apply again.
    pub redo: [Option<Redone>; KEYS.len()],
    highest: [Option<Order>; KEYS.len()],
}

/// What happens, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Records,
    Rebalances,
    Kills,
    Pauses,
    Expelled,
    TransactionTimeouts,
    RefusedByKafka,
    DroppedBatches,
    Requests,
    LostAnswers,
    LateEffects,
    Rejected,
    NotSent,
    BlockedLanes,
    Parents,
    Links,
    Leases,
    Recovered,
    Released,
    Stale,
    Unchanged,
    Remembered,
    LateAnswersOfCommits,
    Orphans,
    Circles,
    DroppedLinks,
    Healed,
    Retried,
    HeldBack,
}

impl Event {
    /// Every event.
    pub const ALL: [(Event, &'static str); 29] = [
        (Event::Records, "records written by the source"),
        (Event::Rebalances, "rebalances"),
        (Event::Kills, "processes killed or fenced"),
        (Event::Pauses, "processes paused"),
        (Event::Expelled, "members expelled"),
        (Event::TransactionTimeouts, "transactions timed out"),
        (Event::RefusedByKafka, "transactions of zombies refused"),
        (Event::DroppedBatches, "batches dropped"),
        (Event::Requests, "requests to the target"),
        (Event::LostAnswers, "answers lost"),
        (Event::LateEffects, "effects after the sender was gone"),
        (Event::Rejected, "records rejected"),
        (Event::NotSent, "records not sent at first"),
        (Event::BlockedLanes, "lanes blocked"),
        (Event::Parents, "parked for a parent"),
        (Event::Links, "parked for a link"),
        (Event::Leases, "parked for a lease"),
        (Event::Recovered, "recovered"),
        (Event::Released, "parked records released"),
        (Event::Stale, "stale"),
        (Event::Unchanged, "unchanged"),
        (Event::Remembered, "absent, only noted"),
        (Event::LateAnswersOfCommits, "commits answered after a loss"),
        (Event::Orphans, "dead for a parent that never comes"),
        (Event::Circles, "dead for a circle"),
        (Event::DroppedLinks, "links dropped"),
        (Event::Healed, "orphans let go on"),
        (Event::Retried, "dead letters retried by redo"),
        (Event::HeldBack, "lanes held back"),
    ];
}

/// A rule of the outcome that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which one.
    pub what: &'static str,
    /// By what.
    pub detail: String,
}

/// Everything.
pub struct World {
    /// What is fixed.
    pub setting: Setting,
    /// The virtual clock, in milliseconds.
    pub now: u64,
    /// The canonical topics, by entity and partition.
    pub canonical: [[Vec<Canonical>; MOST_PARTITIONS]; 2],
    /// The tables, by table and partition.
    pub logs: [[Log; MOST_PARTITIONS]; TABLES],
    /// All transactions.
    pub transactions: Vec<Transaction>,
    /// The consumer group.
    pub group: Group,
    /// Requests whose effect or answer is awaited by someone.
    pub requests: Vec<Request>,
    /// The target's records.
    pub rows: Vec<Row>,
    /// By entity, whether the target refuses us altogether.
    pub refusing: [bool; 2],
    /// Whether the target takes only every other record of a batch.
    pub throttling: bool,
    /// The workers.
    pub workers: Vec<Worker>,
    /// What is decided.
    pub truth: Truth,
    /// How often what happened.
    pub counts: [u64; Event::ALL.len()],
    /// The first rule that was broken.
    pub violation: Option<Violation>,
    /// The history as text, where it is wanted.
    pub trace: Option<Vec<String>>,
    versions: [Vec<Content>; KEYS.len()],
    mappings: [u32; KEYS.len()],
    last_row: u64,
}

/// What the source does next to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edit {
    /// A newer version.
    New,
    /// A newer version that the target refuses.
    Refused,
    /// The record is deleted.
    Delete,
    /// The version before is seen again (a lagging replica).
    Older,
    /// The newest version is seen again.
    Same,
    /// The newest version is mapped anew, to another content or back.
    Remap,
}

impl World {
    /// The beginning of a history.
    pub fn new(setting: Setting) -> Self {
        World {
            setting,
            now: 0,
            canonical: Default::default(),
            logs: Default::default(),
            transactions: Vec::new(),
            group: Group::default(),
            requests: Vec::new(),
            rows: Vec::new(),
            refusing: [false; 2],
            throttling: false,
            workers: (0..setting.workers).map(Worker::new).collect(),
            truth: Truth::default(),
            counts: [0; Event::ALL.len()],
            violation: None,
            trace: None,
            versions: Default::default(),
            mappings: [1; KEYS.len()],
            last_row: 0,
        }
    }

    /// Whether a rule holds.
    pub fn has(&self, rule: Rule) -> bool {
        self.setting.rules.has(rule)
    }

    /// The partition of a key.
    pub fn partition(&self, key: Key) -> usize {
        KEYS[key].partition % self.setting.partitions
    }

    /// The lease, as `judge` is given it.
    pub fn lease(&self) -> Lease {
        let length = if self.has(Rule::Lease) { LEASE } else { 0 };
        let delay = if self.has(Rule::IndexDelay) {
            INDEX_DELAY
        } else {
            0
        };
        Lease {
            identity: match self.setting.kind {
                Kind::Ordered => Identity::Upsert,
                Kind::Find => Identity::Find,
                Kind::None => Identity::None {
                    index_delay: Duration::from_millis(delay),
                },
            },
            length: Duration::from_millis(length),
        }
    }

    /// Counts an event.
    pub fn count(&mut self, event: Event) {
        self.counts[event as usize] += 1;
    }

    /// Notes a line of the history, where it is wanted.
    pub fn say(&mut self, who: &str, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let seconds = self.now as f64 / 1000.0;
            trace.push(format!("{seconds:>7.1} s  {who:<14} {}", what()));
        }
    }

    /// Notes that a rule of the outcome was broken.
    pub fn broken(&mut self, what: &'static str, detail: String) {
        if self.violation.is_none() {
            self.say("CHECK", || format!("{what}: {detail}"));
            self.violation = Some(Violation { what, detail });
        }
    }

    /// The order of a canonical record.
    pub fn order_of(&self, version: i64, mapping: u32, offset: usize) -> Order {
        Order {
            version: if self.has(Rule::SourceVersionFirst) {
                version
            } else {
                0
            },
            mapping: if self.has(Rule::SourceVersionFirst) {
                mapping
            } else {
                0
            },
            incarnation: 1,
            offset: offset as i64,
            reapply: 0,
        }
    }

    // --- the source ---------------------------------------------------------

    /// The source changes a key, and the transformer writes it.
    pub fn edit(&mut self, key: Key, edit: Edit) -> bool {
        let versions = &mut self.versions[key];
        let newest = versions.len();
        // Never 0, which is the fingerprint of no content.
        let print = newest as u8 * 2 + 3;
        let fresh = Content {
            print,
            absent: false,
            refused: false,
            at: self.now,
        };
        match edit {
            Edit::New => versions.push(fresh),
            Edit::Refused => versions.push(Content {
                refused: true,
                ..fresh
            }),
            Edit::Delete => versions.push(Content {
                absent: true,
                ..fresh
            }),
            Edit::Older if newest < 2 => return false,
            Edit::Same | Edit::Remap if newest < 1 => return false,
            Edit::Remap if versions[newest - 1].absent => return false,
            Edit::Remap => {
                versions[newest - 1].print ^= 1;
                self.mappings[key] += 1;
            }
            Edit::Older | Edit::Same => {}
        }
        let version = match edit {
            Edit::Older => newest - 1,
            _ => self.versions[key].len(),
        };
        let content = self.versions[key][version - 1];
        let mapping = self.mappings[key];
        let partition = self.partition(key);
        let log = &mut self.canonical[KEYS[key].entity][partition];
        let offset = log.len();
        log.push(Canonical::Record {
            key,
            version: version as i64,
            mapping,
            content,
        });
        log.push(Canonical::Marker);
        self.count(Event::Records);
        self.say("source", || {
            let what = match (content.absent, content.refused) {
                (true, _) => " (deleted)",
                (_, true) => " (the target will refuse it)",
                _ => "",
            };
            format!(
                "{} v{version}.{mapping}{what} at {partition}@{offset}",
                KEYS[key].name
            )
        });
        true
    }

    // --- transactions -------------------------------------------------------

    /// Opens a transaction and produces its records.
    pub fn produce(&mut self, worker: usize, records: Vec<(Key, Value)>) -> usize {
        let by = self.transactions.len();
        let mut unmarked = Vec::new();
        for (key, value) in &records {
            let table = value.table();
            let partition = self.partition(*key);
            let log = &mut self.logs[table][partition];
            if !unmarked.contains(&(table, partition)) {
                unmarked.push((table, partition));
                log.open.push((by, log.items.len()));
            }
            log.items.push(Logged::Record {
                by,
                key: *key,
                value: Box::new(value.clone()),
            });
        }
        self.transactions.push(Transaction {
            worker,
            opened: self.now,
            fate: Fate::Open,
            unmarked,
            offsets: None,
            records,
        });
        by
    }

    /// Whether the coordinator takes offsets from that member.
    pub fn is_member(&self, worker: usize, meta: Meta) -> bool {
        meta.generation == self.group.generation
            && self
                .group
                .members
                .get(&worker)
                .is_some_and(|m| m.id == meta.member)
    }

    /// Gives a transaction up.
    pub fn abort(&mut self, transaction: usize) {
        self.transactions[transaction].fate = Fate::Aborted;
        if let Some(offsets) = &mut self.transactions[transaction].offsets {
            offsets.clear();
        }
    }

    /// Decides a transaction. Its markers are written one by one, later.
    pub fn commit(&mut self, transaction: usize) {
        let records = std::mem::take(&mut self.transactions[transaction].records);
        self.transactions[transaction].fate = Fate::Committed;
        for (key, value) in records {
            match value {
                Value::Entry(entry) => self.enter(key, entry),
                Value::Parked(parked) => self.truth.parked[key] = parked,
                Value::Letter(letter) => {
                    self.truth.dead[key] = letter;
                }
                Value::Redo(redo) => self.truth.redo[key] = redo,
            }
        }
        if let Some(offsets) = self.transactions[transaction].offsets.clone() {
            self.decide(&offsets);
        }
    }

    fn enter(&mut self, key: Key, entry: Option<Entry>) {
        let highest = self.truth.highest[key];
        let order = entry.as_ref().map(|entry| entry.order);
        if order < highest {
            self.broken(
                "the idempotency table goes backwards",
                format!("{}: {:?} after {:?}", KEYS[key].name, order, highest),
            );
        }
        if entry
            .as_ref()
            .is_some_and(|e| !matches!(e.state, State::Pending { .. }))
        {
            self.truth.highest[key] = order;
        }
        self.truth.entries[key] = entry;
    }

    /// Offsets are committed; what lies before them must be accounted for.
    pub fn decide(&mut self, offsets: &[Next]) {
        for &(entity, partition, next) in offsets {
            self.group.decided[entity][partition] = next;
            self.check_consumed(entity, partition);
        }
    }

    /// The missing markers: which transaction, and which of its partitions
    /// (`None`: the one of its offsets).
    pub fn missing_markers(&self) -> Vec<(usize, Option<usize>)> {
        let mut missing = Vec::new();
        for (number, transaction) in self.transactions.iter().enumerate() {
            if transaction.fate == Fate::Open {
                continue;
            }
            missing.extend((0..transaction.unmarked.len()).map(|place| (number, Some(place))));
            if transaction.offsets.is_some() {
                missing.push((number, None));
            }
        }
        missing
    }

    /// Writes a missing marker.
    pub fn mark(&mut self, number: usize, place: Option<usize>) {
        match place {
            Some(place) => {
                let (table, partition) = self.transactions[number].unmarked.remove(place);
                let log = &mut self.logs[table][partition];
                log.open.retain(|(by, _)| *by != number);
                log.items.push(Logged::Marker);
            }
            None => {
                for (entity, partition, next) in
                    self.transactions[number].offsets.take().unwrap_or_default()
                {
                    self.group.offsets[entity][partition] = next;
                }
            }
        }
    }

    /// The broker gives up a transaction that has been open for too long; its
    /// producer is of no use any more.
    pub fn time_out(&mut self, number: usize) -> bool {
        let transaction = &self.transactions[number];
        if transaction.fate != Fate::Open || self.now < transaction.opened + TRANSACTION_TIMEOUT {
            return false;
        }
        let who = transaction.worker;
        self.abort(number);
        self.count(Event::TransactionTimeouts);
        self.say("broker", || {
            format!("aborts the open transaction of worker {who}")
        });
        true
    }

    /// A person has a dead letter tried again.
    pub fn retry(&mut self, key: Key) -> bool {
        let Some(letter) = self.truth.dead[key] else {
            return false;
        };
        let redone = Redone {
            order: letter.order,
            content: letter.content,
        };
        if self.truth.redo[key] == Some(redone) {
            return false;
        }
        let number = self.produce(ORCHESTRATOR, vec![(key, Value::Redo(Some(redone)))]);
        self.commit(number);
        while !self.transactions[number].unmarked.is_empty() {
            self.mark(number, Some(0));
        }
        self.count(Event::Retried);
        self.say("a person", || format!("retries {}", KEYS[key].name));
        true
    }

    // --- the group ----------------------------------------------------------

    /// A new member, or an old one under a new id.
    pub fn join(&mut self, worker: usize) -> u64 {
        self.group.last_id += 1;
        let id = self.group.last_id;
        let member = Member {
            id,
            joined: true,
            partitions: Vec::new(),
        };
        self.group.members.insert(worker, member);
        self.group.preparing = true;
        self.complete();
        id
    }

    /// A restarted process takes its old membership over.
    pub fn take_over(&mut self, worker: usize) -> u64 {
        self.group.last_id += 1;
        let id = self.group.last_id;
        if let Some(member) = self.group.members.get_mut(&worker) {
            member.id = id;
            member.joined = self.group.preparing;
        }
        self.complete();
        id
    }

    /// A member is silent for too long.
    pub fn expel(&mut self, worker: usize) {
        self.group.members.remove(&worker);
        self.group.preparing = true;
        self.count(Event::Expelled);
        self.say("group", || format!("expels worker {worker}"));
        self.complete();
    }

    /// Something makes the coordinator rebalance.
    pub fn prepare(&mut self) {
        self.group.preparing = true;
        for member in self.group.members.values_mut() {
            member.joined = false;
        }
        self.say("group", || "rebalances".to_owned());
    }

    /// Ends the rebalance when every member has joined it.
    pub fn complete(&mut self) {
        let group = &mut self.group;
        if !group.preparing || group.members.is_empty() || !group.members.values().all(|m| m.joined)
        {
            return;
        }
        group.preparing = false;
        group.generation += 1;
        group.turn += 1;
        let (turn, count) = (group.turn, group.members.len());
        for (place, member) in group.members.values_mut().enumerate() {
            member.joined = false;
            member.partitions = (0..self.setting.partitions)
                .filter(|partition| (partition + turn) % count == place)
                .collect();
        }
        self.count(Event::Rebalances);
        if self.trace.is_some() {
            let shares: Vec<String> = self
                .group
                .members
                .iter()
                .map(|(worker, m)| format!("worker {worker}: {:?}", m.partitions))
                .collect();
            let generation = self.group.generation;
            self.say("group", || {
                format!("generation {generation}: {}", shares.join(", "))
            });
        }
    }

    /// Whether offsets of the partition are in a transaction under way.
    pub fn offsets_pending(&self, partition: usize) -> bool {
        self.transactions.iter().any(|transaction| {
            transaction
                .offsets
                .as_ref()
                .is_some_and(|offsets| offsets.iter().any(|(_, p, _)| *p == partition))
        })
    }

    // --- the target ---------------------------------------------------------

    /// What the target finds under a key.
    pub fn find(&self, key: Key) -> Option<String> {
        let visible = |row: &&Row| {
            row.key == key
                && (self.setting.kind != Kind::None || row.created + INDEX_DELAY <= self.now)
        };
        self.rows.iter().find(visible).map(|row| row.id.clone())
    }

    /// A request takes effect. Its answer may or may not reach the sender.
    pub fn take_effect(&mut self, number: usize) {
        let request = &mut self.requests[number];
        request.over = true;
        let (key, order, content) = (request.key, request.order, request.content);
        let id = request.id.clone();
        let (worker, process, ..) = request.sender;
        let late = !request.awaited || self.workers[worker].process != process;
        let linked = self.requests[number].linked;
        let answer = self.written(key, order, content, linked, id);
        self.requests[number].answer = Some(answer);
        if late {
            self.count(Event::LateEffects);
        }
    }

    fn written(
        &mut self,
        key: Key,
        order: Order,
        content: Content,
        linked: bool,
        id: Option<String>,
    ) -> Outcome {
        let name = KEYS[key].name;
        if content.refused {
            self.say("target", || format!("rejects {name} v{}", order.version));
            return Outcome::Rejected;
        }
        if let Some((parent, true)) = KEYS[key].parent
            && !content.absent
            && !self.rows.iter().any(|row| row.key == parent)
        {
            self.broken("a child is written before its parent", name.to_owned());
        }
        let ordered = self.setting.kind == Kind::Ordered;
        let place = if ordered {
            self.rows.iter().position(|row| row.key == key)
        } else {
            self.rows
                .iter()
                .position(|row| Some(&row.id) == id.as_ref())
        };
        if let Some(place) = place {
            let row = &mut self.rows[place];
            let id = Some(row.id.clone());
            let (before, guarded) = (row.order, ordered && row.order >= order);
            if guarded && self.setting.rules.has(Rule::OrderGuard) {
                self.say("target", || {
                    format!("has {name} v{} or newer", order.version)
                });
                return Outcome::Applied {
                    id,
                    newer: before > order,
                };
            }
            row.order = order;
            row.content = content;
            row.linked = linked;
            self.say("target", || format!("updates {name} to v{}", order.version));
            if order < before {
                let detail = format!("{name}: {order:?} over {before:?}");
                self.broken("the target goes backwards", detail);
            }
            return Outcome::Applied { id, newer: false };
        }
        if content.absent && !ordered {
            self.say("target", || format!("has no {name} to delete"));
            return Outcome::Applied {
                id: None,
                newer: false,
            };
        }
        self.last_row += 1;
        let id = self.last_row.to_string();
        self.say("target", || {
            format!("creates {name} v{} as record {id}", order.version)
        });
        if self.rows.iter().any(|row| row.key == key) {
            self.broken("a record is created twice", name.to_owned());
        }
        let created = self.now;
        self.rows.push(Row {
            id: id.clone(),
            key,
            order,
            content,
            linked,
            created,
        });
        Outcome::Applied {
            id: Some(id),
            newer: false,
        }
    }

    /// The clock goes on; a request that is still on its way at the end of the
    /// target's processing time takes effect then.
    pub fn tick(&mut self, millis: u64) {
        let until = self.now + millis;
        loop {
            let due = (0..self.requests.len())
                .filter(|number| !self.requests[*number].over)
                .min_by_key(|number| self.requests[*number].sent)
                .filter(|number| self.requests[*number].sent + LEASE / 2 - 1 <= until);
            let Some(number) = due else { break };
            self.now = self.now.max(self.requests[number].sent + LEASE / 2 - 1);
            self.take_effect(number);
        }
        self.now = self.now.max(until);
    }

    /// The fingerprint that `judge` compares.
    pub fn fingerprint(content: Content) -> Fingerprint {
        Fingerprint([content.print; 16])
    }
}
