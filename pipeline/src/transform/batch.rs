//! A batch in the making: messages become outputs in the batch's own memory,
//! by several threads and in the order of the messages, so that the consumer's
//! memory is free again at once.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use drover_schemas::{Entity, entities};
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::message::{BorrowedMessage, Message, OwnedHeaders};

use super::redo::Redo;
use super::{Outputs, Transformer};
use crate::bodies::{self, Bodies};
use crate::control::INCARNATION;
use crate::deadletter::{
    Author, DeadLetter, LiveLetters, Origin, record as dead_record, topic_key,
};
use crate::envelope::Envelope;
use crate::error::{Class, Code, Error, Result};
use crate::kafka::Place;
use crate::kafka::producer::{Record, Transaction};
use crate::record::{Fingerprint, Millis, Op, RawKey, Told};
use crate::spec::Stage;
use crate::status::{Count, now};
use crate::topics::Topics;

/// The largest value that is written: a dead letter of it, in base64, still fits
/// into what the bus takes (10 MB). The body of a larger one goes to the object
/// store, if there is one.
pub(crate) const MAX_RECORD: usize = 7 << 20;
/// Fewer messages than this are not worth another thread.
const SHARE: usize = 250;

/// Where outputs go.
pub(super) struct Sinks {
    /// By entity, in the order of [`entities`].
    canonical: Vec<String>,
    /// The topic of dead letters.
    pub deadletter: String,
    /// The topic of retries.
    redo: String,
}

impl Sinks {
    pub fn new(topics: &Topics) -> Self {
        Sinks {
            canonical: entities()
                .iter()
                .map(|entity| topics.canonical(&entity.name))
                .collect(),
            deadletter: topics.deadletter(),
            redo: topics.redo_transform(),
        }
    }
}

/// What all threads share that make outputs.
pub(super) struct Desk<T> {
    pub transformer: T,
    /// The mapping's generation.
    pub generation: u32,
    /// Who signs dead letters.
    pub author: Author,
    /// Where bodies lie that the bus does not take.
    pub bodies: Option<Arc<Bodies>>,
    /// How many threads may work at once.
    pub threads: usize,
}

/// Outputs of one thread's share of the messages.
#[derive(Default)]
struct Part {
    /// Keys and values.
    data: Vec<u8>,
    outputs: Vec<Placed>,
    /// One a message.
    verdicts: Vec<Verdict>,
}

/// An output in a part's data.
struct Placed {
    /// Its place in [`Sinks::canonical`].
    topic: usize,
    key: Range<usize>,
    value: Range<usize>,
}

/// What became of a message.
enum Verdict {
    /// It is no record of the migration.
    Passed,
    Transformed {
        version: Millis,
        extracted_at: Millis,
        told: Told,
    },
    Dead(Box<DeadLetter>),
    /// The lane has to stop before it.
    Blocked(Box<Error>),
}

/// A dead letter, or the tombstone of one.
pub(super) struct Letter {
    pub partition: i32,
    pub key: String,
    pub value: Option<Vec<u8>>,
    headers: Option<OwnedHeaders>,
}

/// A retry that ends with a batch.
pub(super) struct Retried {
    /// As it was taken.
    pub redo: Redo,
    pub object: String,
    /// `None` where nothing was left to do.
    pub became: Option<Became>,
    /// Whether another one was asked for since: a tombstone would hide that.
    pub renewed: bool,
}

/// What was read of a partition.
pub(super) struct Span {
    pub place: Place,
    /// The first offset.
    pub start: i64,
    /// The offset to read next.
    pub next: i64,
}

/// What a record became.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Became {
    Transformed,
    Dead,
    /// The same version failed before: it was counted then.
    DeadAgain,
}

impl Became {
    /// As what it is counted.
    pub fn count(self) -> Count {
        match self {
            Became::Transformed => Count::Transformed,
            Became::Dead | Became::DeadAgain => Count::Dead,
        }
    }
}

/// Messages in a row that became the same.
pub(super) struct Tally {
    pub topic: String,
    pub object: String,
    pub became: Became,
    pub number: u64,
    /// When the last of them was extracted.
    pub extracted_at: Option<Millis>,
    /// Fields of theirs that went to `custom`.
    pub custom: u64,
    /// What else is worth telling, and how often.
    pub remarks: BTreeMap<String, u64>,
}

/// By raw key, the version of the dead letter that stands; `None`: none does.
pub(super) type Touched = HashMap<String, Option<Millis>>;

/// What goes into one transaction.
#[derive(Default)]
pub(super) struct Batch {
    parts: Vec<Part>,
    /// Memory of former parts.
    spare: Vec<Part>,
    pub letters: Vec<Letter>,
    pub spans: Vec<Span>,
    pub tallies: Vec<Tally>,
    /// By raw key, the versions of the dead letters that this batch leaves;
    /// `None` where it takes one back.
    pub touched: Touched,
    /// Retries that end with this batch.
    pub retried: Vec<Retried>,
    /// Offsets to commit once more where nothing was read: only offsets are
    /// fenced.
    pub fence: HashMap<Place, i64>,
    /// Messages.
    pub records: usize,
    /// Of the messages' values.
    pub bytes: usize,
    /// When its first message came.
    pub since: Option<Instant>,
    /// The group as it was then.
    pub group: Option<Arc<ConsumerGroupMetadata>>,
}

/// A message, or a retry of one.
struct Input<'m> {
    topic: &'m str,
    partition: i32,
    offset: i64,
    key: &'m [u8],
    value: &'m [u8],
}

impl<'m> Input<'m> {
    fn of(message: &'m BorrowedMessage<'_>) -> Self {
        Input {
            topic: message.topic(),
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().unwrap_or_default(),
            value: message.payload().unwrap_or_default(),
        }
    }
}

impl Batch {
    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty() && self.retried.is_empty()
    }

    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        let parts = std::mem::take(&mut self.parts);
        let mut spare = std::mem::take(&mut self.spare);
        spare.extend(parts.into_iter().map(|mut part| {
            part.data.clear();
            part.outputs.clear();
            part.verdicts.clear();
            part
        }));
        *self = Batch {
            spare,
            ..Batch::default()
        };
    }

    /// Adds what becomes of these messages. `before` is the batch that is being
    /// committed meanwhile: its dead letters are not in `live` yet. On an error,
    /// which blocks the lane of that topic, the batch must be thrown away.
    pub fn add<T: Transformer>(
        &mut self,
        desk: &Desk<T>,
        messages: &[BorrowedMessage<'_>],
        live: &LiveLetters,
        before: &Touched,
    ) -> Result<(), (String, Error)> {
        self.since.get_or_insert_with(Instant::now);
        let share = messages
            .len()
            .div_ceil(desk.threads.max(1))
            .max(SHARE.min(messages.len()))
            .max(1);
        let mut shares: Vec<_> = messages
            .chunks(share)
            .map(|share| (share, self.spare.pop().unwrap_or_default()))
            .collect();
        std::thread::scope(|scope| {
            if let Some(((first, part), others)) = shares.split_first_mut() {
                for (share, part) in others {
                    scope.spawn(|| desk.share(share, part));
                }
                desk.share(first, part);
            }
        });
        for (share, mut part) in shares {
            let verdicts = std::mem::take(&mut part.verdicts);
            self.parts.push(part);
            for (message, verdict) in share.iter().zip(verdicts) {
                if let Err(trouble) = self.note(&Input::of(message), verdict, live, before) {
                    // Whoever goes back must go behind all that was read.
                    for message in messages {
                        self.read(&Input::of(message));
                    }
                    return Err(trouble);
                }
            }
        }
        Ok(())
    }

    /// Takes up a retry. Its letter must be live: otherwise this or a newer
    /// version has gone through since, and nothing is left to do. An error
    /// means that it waits for a person.
    pub fn retry<T: Transformer>(
        &mut self,
        desk: &Desk<T>,
        redo: &Redo,
        raw_topic: impl Fn(&str) -> Option<String>,
        live: &LiveLetters,
    ) -> Result<()> {
        let envelope = Envelope::decode(&redo.value).map_err(|e| e.at(redo.key.clone()))?;
        let lives = live.clears(&redo.key, envelope.version);
        let mut became = None;
        if let Some(topic) = raw_topic(envelope.object).filter(|_| lives) {
            let input = Input {
                topic: &topic,
                partition: redo.partition,
                offset: envelope.order.map_or(-1, |order| order.offset),
                key: redo.key.as_bytes(),
                value: &redo.value,
            };
            let mut part = self.spare.pop().unwrap_or_default();
            let verdict = desk.one(&input, &mut Outputs::default(), &mut part);
            self.parts.push(part);
            became = match verdict {
                Verdict::Blocked(error) => return Err(*error),
                Verdict::Transformed { version, .. } => {
                    self.succeeded(&input, &redo.key, version, live, &Touched::new());
                    Some(Became::Transformed)
                }
                Verdict::Dead(letter) => Some(self.died(&input, *letter, live)),
                Verdict::Passed => None,
            };
        }
        let object = envelope.object.to_owned();
        self.retried.push(Retried {
            redo: redo.clone(),
            object,
            became,
            renewed: false,
        });
        Ok(())
    }

    /// Notes what became of a message, in the order of the messages.
    fn note(
        &mut self,
        input: &Input<'_>,
        verdict: Verdict,
        live: &LiveLetters,
        before: &Touched,
    ) -> Result<(), (String, Error)> {
        self.read(input);
        self.records += 1;
        self.bytes += input.value.len();
        match verdict {
            Verdict::Passed => {}
            Verdict::Transformed {
                version,
                extracted_at,
                told,
            } => {
                // A key that is the record's is text.
                let key = std::str::from_utf8(input.key).unwrap_or_default();
                self.succeeded(input, key, version, live, before);
                let object = key.split('/').nth(1).unwrap_or_default();
                let tally = self.tally(input.topic, object, Became::Transformed);
                tally.extracted_at = Some(extracted_at);
                tally.custom += told.custom as u64;
                for remark in told.remarks {
                    *tally.remarks.entry(remark).or_default() += 1;
                }
            }
            Verdict::Dead(letter) => {
                let object = letter.object.clone();
                let became = self.died(input, *letter, live);
                self.tally(input.topic, &object, became);
            }
            Verdict::Blocked(error) => return Err((input.topic.to_owned(), *error)),
        }
        Ok(())
    }

    /// A success takes back the record's dead letter of this or an older
    /// version: one of this batch, of the one before it, or of any earlier.
    fn succeeded(
        &mut self,
        input: &Input<'_>,
        key: &str,
        version: Millis,
        live: &LiveLetters,
        before: &Touched,
    ) {
        let stands = match self.touched.get(key).or_else(|| before.get(key)) {
            Some(letter) => letter.is_some_and(|dead| dead <= version),
            None => live.clears(key, version),
        };
        if stands {
            self.touched.insert(key.to_owned(), None);
            self.letters.push(Letter {
                partition: input.partition,
                key: topic_key(Stage::Transformer, key),
                value: None,
                headers: None,
            });
        }
    }

    fn died(&mut self, input: &Input<'_>, mut letter: DeadLetter, live: &LiveLetters) -> Became {
        let became = match live.count_on(&mut letter) {
            true => Became::DeadAgain,
            false => Became::Dead,
        };
        self.letters.push(Letter {
            partition: input.partition,
            key: letter.topic_key(),
            value: Some(letter.to_json()),
            headers: Some(letter.headers()),
        });
        self.touched.insert(letter.key, Some(letter.version));
        became
    }

    fn read(&mut self, input: &Input<'_>) {
        // Messages of a partition come in a row, so it is mostly the last one.
        let known = self.spans.iter_mut().rev().find(|span| {
            span.place.partition == input.partition && span.place.topic == input.topic
        });
        match known {
            Some(span) => span.next = input.offset + 1,
            None => self.spans.push(Span {
                place: Place::new(input.topic, input.partition),
                start: input.offset,
                next: input.offset + 1,
            }),
        }
    }

    /// Counts one more, and returns what it was counted in.
    fn tally(&mut self, topic: &str, object: &str, became: Became) -> &mut Tally {
        let same =
            |last: &Tally| last.became == became && last.object == object && last.topic == topic;
        if !self.tallies.last().is_some_and(same) {
            self.tallies.push(Tally {
                topic: topic.to_owned(),
                object: object.to_owned(),
                became,
                number: 0,
                extracted_at: None,
                custom: 0,
                remarks: BTreeMap::new(),
            });
        }
        let last = self.tallies.len() - 1;
        let tally = &mut self.tallies[last];
        tally.number += 1;
        tally
    }

    /// Produces everything.
    pub fn send(&self, sinks: &Sinks, transaction: &mut Transaction<'_>) -> Result<()> {
        for part in &self.parts {
            for output in &part.outputs {
                transaction.send(Record::new(
                    &sinks.canonical[output.topic],
                    &part.data[output.key.clone()],
                    Some(&part.data[output.value.clone()]),
                ))?;
            }
        }
        for letter in &self.letters {
            transaction.send(dead_record(
                &sinks.deadletter,
                letter.partition,
                &letter.key,
                letter.value.as_deref(),
                letter.headers.clone(),
            ))?;
        }
        for retried in self.retried.iter().filter(|retried| !retried.renewed) {
            let key = retried.redo.key.as_bytes();
            transaction.send(Record::new(&sinks.redo, key, None))?;
        }
        Ok(())
    }
}

impl<T: Transformer> Desk<T> {
    fn share(&self, messages: &[BorrowedMessage<'_>], part: &mut Part) {
        let mut out = Outputs::default();
        for message in messages {
            let verdict = self.one(&Input::of(message), &mut out, part);
            part.verdicts.push(verdict);
        }
    }

    fn one<'t>(&'t self, input: &Input<'_>, out: &mut Outputs<'t>, part: &mut Part) -> Verdict {
        let (key, value) = (input.key, input.value);
        if key == INCARNATION {
            return Verdict::Passed;
        }
        let envelope = match Envelope::decode(value) {
            Ok(envelope) => envelope,
            Err(error) if error.class() == Class::Record => {
                return self.dead(input, &error, 0, value);
            }
            Err(error) => {
                let place = Place::new(input.topic, input.partition);
                return blocked(error.at(format!("{place}@{}", input.offset)));
            }
        };
        if let Err(error) = names_itself(&envelope, key) {
            let version = match error.code {
                Code::ForeignBytes => 0,
                _ => envelope.version,
            };
            return self.dead(input, &error, version, value);
        }
        let body;
        let loaded = match &envelope.stored {
            None => &envelope,
            Some(stored) => match bodies::get_now(self.bodies.as_deref(), stored) {
                Ok(read) => {
                    body = read;
                    &envelope.with_body(&body)
                }
                Err(error) => return blocked(of_record(error, key)),
            },
        };
        out.clear();
        match self.transformer.write(loaded, out) {
            Ok(()) => {}
            Err(error) if error.class() == Class::Record => {
                let mut dead = self.dead(input, &error, envelope.version, value);
                if let (Verdict::Dead(letter), true) = (&mut dead, envelope.stored.is_some()) {
                    letter.mask_body(loaded.body_schema, loaded.body.unwrap_or_default());
                }
                return dead;
            }
            Err(error) => return blocked(error.at(String::from_utf8_lossy(key))),
        }
        let (data, outputs) = (part.data.len(), part.outputs.len());
        match self.place(&envelope, key, out, part) {
            Ok(told) => Verdict::Transformed {
                version: envelope.version,
                extracted_at: envelope.extracted_at,
                told,
            },
            Err(error) => {
                part.data.truncate(data);
                part.outputs.truncate(outputs);
                match error.class() {
                    Class::Record => self.dead(input, &error, envelope.version, b""),
                    _ => blocked(of_record(error, key)),
                }
            }
        }
    }

    fn dead(&self, input: &Input<'_>, error: &Error, version: Millis, value: &[u8]) -> Verdict {
        let origin = Origin {
            place: Place::new(input.topic, input.partition),
            offset: input.offset,
        };
        let key = String::from_utf8_lossy(input.key);
        let letter = DeadLetter::new(
            &self.author,
            &key,
            error,
            &origin,
            version,
            None,
            now(),
            value,
        );
        Verdict::Dead(Box::new(letter))
    }

    /// Puts a record's outputs into their envelopes.
    fn place(
        &self,
        raw: &Envelope<'_>,
        key: &[u8],
        out: &Outputs<'_>,
        part: &mut Part,
    ) -> Result<Told> {
        let mut told = Told::default();
        for output in out.iter() {
            told.custom += output.told.custom;
            told.remarks.extend_from_slice(&output.told.remarks);
            let start = part.data.len();
            part.data.extend_from_slice(key);
            part.data.push(b'#');
            part.data.extend_from_slice(output.slot.as_bytes());
            let split = part.data.len();
            let (op, reason, body) = match output.content {
                Ok(datum) => (Op::Upsert, None, Some(datum)),
                Err(reason) => (Op::Absent, Some(reason), None),
            };
            let body_schema = output.entity.schema.as_str();
            let envelope = Envelope {
                slot: output.slot,
                op,
                reason,
                mapping: self.generation,
                fingerprint: Fingerprint::of(op, body_schema, body.unwrap_or_default()),
                body_schema,
                body,
                stored: None,
                ..raw.clone()
            };
            envelope.encode_into(&mut part.data);
            let size = part.data.len() - split;
            if size > MAX_RECORD {
                let message = format!("{size} bytes when mapped, at most {MAX_RECORD}");
                let (Some(bodies), Some(body)) = (&self.bodies, body) else {
                    return Err(Error::new(Code::TooLarge, message));
                };
                part.data.truncate(split);
                let stored = bodies.put_now(body.to_vec())?;
                envelope.with_body_at(stored).encode_into(&mut part.data);
            }
            let end = part.data.len();
            part.outputs.push(Placed {
                topic: place_of(output.entity),
                key: start..split,
                value: split..end,
            });
        }
        Ok(told)
    }
}

fn place_of(entity: &'static Entity) -> usize {
    entities()
        .iter()
        .position(|one| std::ptr::eq(one, entity))
        // Every entity is one of them; there is no other way to get one.
        .unwrap_or_default()
}

/// Whether the message's key is the record's.
fn names_itself(envelope: &Envelope<'_>, key: &[u8]) -> Result<()> {
    let (source, object, id) = (envelope.source, envelope.object, envelope.id);
    let is_key = key.len() == source.len() + object.len() + id.len() + 2
        && key.starts_with(source.as_bytes())
        && key[source.len()] == b'/'
        && key[source.len() + 1..].starts_with(object.as_bytes())
        && key[source.len() + 1 + object.len()] == b'/'
        && key.ends_with(id.as_bytes());
    let is_good = !source.is_empty() && !object.is_empty() && !id.is_empty();
    if is_key && is_good && !source.contains('/') && !object.contains('/') {
        return Ok(());
    }
    RawKey::new(source, object, id)?;
    Err(Error::new(
        Code::ForeignBytes,
        "the message's key is not the record's key",
    ))
}

/// The error with the record's key, and with its place in the store.
fn of_record(error: Error, key: &[u8]) -> Error {
    let key = String::from_utf8_lossy(key);
    match error.place.clone() {
        Some(place) => error.at(format!("{key}, {place}")),
        None => error.at(key),
    }
}

fn blocked(error: Error) -> Verdict {
    Verdict::Blocked(Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "salesforce/Contact/1";

    fn input(partition: i32, offset: i64) -> Input<'static> {
        Input {
            topic: "raw",
            partition,
            offset,
            key: KEY.as_bytes(),
            value: b"ten bytes.",
        }
    }

    fn good(version: Millis) -> Verdict {
        Verdict::Transformed {
            version,
            extracted_at: version,
            told: Told::default(),
        }
    }

    fn bad(version: Millis) -> Verdict {
        let origin = Origin {
            place: Place::new("raw", 0),
            offset: 0,
        };
        let error = Error::new(Code::TooLong, "300 characters");
        let author = Author {
            stage: Stage::Transformer,
            connector: "mapper".into(),
            instance: "t".into(),
        };
        let letter = DeadLetter::new(&author, KEY, &error, &origin, version, None, 0, b"x");
        Verdict::Dead(Box::new(letter))
    }

    /// A batch of these versions, and which of them are taken back.
    fn letters(before: &[(&str, Option<Millis>)], verdicts: Vec<Verdict>) -> (Batch, Vec<bool>) {
        let live = LiveLetters::of(Stage::Transformer);
        let before = before.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect();
        let mut batch = Batch::default();
        for (offset, verdict) in verdicts.into_iter().enumerate() {
            batch
                .note(&input(0, offset as i64), verdict, &live, &before)
                .expect("no lane is blocked");
        }
        let tombstones = batch.letters.iter().map(|l| l.value.is_none()).collect();
        (batch, tombstones)
    }

    #[test]
    fn a_success_takes_back_a_letter_of_its_own_batch() {
        let (batch, tombstones) = letters(&[], vec![bad(1), good(2), good(3)]);
        assert_eq!(tombstones, [false, true]);
        assert_eq!(batch.touched.get(KEY), Some(&None));
        let (batch, tombstones) = letters(&[], vec![bad(5), good(4)]);
        assert_eq!(tombstones, [false], "an older version takes nothing back");
        assert_eq!(batch.touched.get(KEY), Some(&Some(5)));
    }

    #[test]
    fn a_success_takes_back_a_letter_that_is_being_committed() {
        let (_, tombstones) = letters(&[(KEY, Some(1))], vec![good(2)]);
        assert_eq!(tombstones, [true]);
        let (_, tombstones) = letters(&[(KEY, Some(3)), ("other", Some(1))], vec![good(2)]);
        assert_eq!(tombstones, [] as [bool; 0]);
    }

    #[test]
    fn a_batch_knows_where_each_partition_began() {
        let live = LiveLetters::of(Stage::Transformer);
        let mut batch = Batch::default();
        for (partition, offset) in [(1, 7), (1, 8), (0, 3), (1, 12), (0, 4)] {
            let verdict = if offset == 12 {
                Verdict::Passed
            } else {
                good(1)
            };
            batch
                .note(&input(partition, offset), verdict, &live, &Touched::new())
                .expect("no lane is blocked");
        }
        let spans = batch
            .spans
            .iter()
            .map(|s| (s.place.partition, s.start, s.next));
        assert_eq!(spans.collect::<Vec<_>>(), [(1, 7, 13), (0, 3, 5)]);
        assert_eq!((batch.records, batch.bytes), (5, 50));
        let tallies: Vec<_> = batch
            .tallies
            .iter()
            .map(|t| (&*t.object, t.number))
            .collect();
        assert_eq!(tallies, [("Contact", 4)]);
        batch.clear();
        assert!(batch.is_empty() && batch.letters.is_empty() && batch.records == 0);
    }
}
