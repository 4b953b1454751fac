//! A batch in the making: messages become outputs in the batch's own memory,
//! by several threads and in the order of the messages, so that the consumer's
//! memory is free again at once.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use drover_schemas::{Entity, entities};
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::message::{BorrowedMessage, Message, OwnedHeaders};

use super::{Outputs, Transformer};
use crate::control::INCARNATION;
use crate::deadletter::{DeadLetter, LiveLetters, Origin, record as dead_record, topic_key};
use crate::envelope::Envelope;
use crate::error::{Class, Code, Error, Result};
use crate::kafka::Place;
use crate::kafka::producer::{Record, Transaction};
use crate::record::{Fingerprint, Millis, Op, RawKey};
use crate::spec::Stage;
use crate::status::now;
use crate::topics::Topics;

/// The largest value that is written: a dead letter of it, in base64, still fits
/// into what the bus takes (10 MB).
pub(crate) const MAX_RECORD: usize = 7 << 20;
/// Fewer messages than this are not worth another thread.
const SHARE: usize = 250;

/// Where outputs go.
pub(super) struct Sinks {
    /// By entity, in the order of [`entities`].
    canonical: Vec<String>,
    /// The topic of dead letters.
    pub deadletter: String,
}

impl Sinks {
    pub fn new(topics: &Topics) -> Self {
        Sinks {
            canonical: entities()
                .iter()
                .map(|entity| topics.canonical(&entity.name))
                .collect(),
            deadletter: topics.deadletter(),
        }
    }
}

/// What all threads share that make outputs.
pub(super) struct Desk<T> {
    pub transformer: T,
    /// The mapping's generation.
    pub generation: u32,
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

/// What was read of a partition.
pub(super) struct Span {
    pub place: Place,
    /// The first offset.
    pub start: i64,
    /// The offset to read next.
    pub next: i64,
}

/// Messages in a row that became the same.
pub(super) struct Tally {
    pub topic: String,
    pub object: String,
    /// Dead letters, or else transformed records.
    pub dead: bool,
    pub number: u64,
    /// When the last of them was extracted.
    pub extracted_at: Option<Millis>,
}

/// What goes into one transaction.
#[derive(Default)]
pub(super) struct Batch {
    parts: Vec<Part>,
    /// Memory of former parts.
    spare: Vec<Part>,
    pub letters: Vec<Letter>,
    pub spans: Vec<Span>,
    pub tallies: Vec<Tally>,
    /// By raw key, the versions of the dead letters that this batch leaves.
    pub dead: HashMap<String, Millis>,
    /// Messages.
    pub records: usize,
    /// Of the messages' values.
    pub bytes: usize,
    /// When its first message came.
    pub since: Option<Instant>,
    /// The group as it was then.
    pub group: Option<Arc<ConsumerGroupMetadata>>,
}

/// Where a message stands, and whose it is.
struct At<'m> {
    topic: &'m str,
    partition: i32,
    offset: i64,
    key: &'m [u8],
    /// Of its value, in bytes.
    length: usize,
}

impl<'m> At<'m> {
    fn of(message: &'m BorrowedMessage<'_>) -> Self {
        At {
            topic: message.topic(),
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().unwrap_or_default(),
            length: message.payload_len(),
        }
    }
}

impl Batch {
    /// Whether nothing was read.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
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
        before: &HashMap<String, Millis>,
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
                if let Err(trouble) = self.note(&At::of(message), verdict, live, before) {
                    // Whoever goes back must go behind all that was read.
                    for message in messages {
                        self.read(&At::of(message));
                    }
                    return Err(trouble);
                }
            }
        }
        Ok(())
    }

    /// Notes what became of a message, in the order of the messages.
    fn note(
        &mut self,
        at: &At<'_>,
        verdict: Verdict,
        live: &LiveLetters,
        before: &HashMap<String, Millis>,
    ) -> Result<(), (String, Error)> {
        self.read(at);
        self.records += 1;
        self.bytes += at.length;
        match verdict {
            Verdict::Passed => {}
            Verdict::Transformed {
                version,
                extracted_at,
            } => {
                // A key that is the record's is text.
                let key =
                    std::str::from_utf8(message.key().unwrap_or_default()).unwrap_or_default();
                let died = || self.dead.get(key).or_else(|| before.get(key));
                if died().is_some_and(|dead| *dead <= version) || live.clears(key, version) {
                    self.dead.remove(key);
                    self.letters.push(Letter {
                        partition: at.partition,
                        key: topic_key(Stage::Transformer, key),
                        value: None,
                        headers: None,
                    });
                }
                let object = key.split('/').nth(1).unwrap_or_default();
                self.tally(at.topic, object, false, Some(extracted_at));
            }
            Verdict::Dead(letter) => {
                self.tally(at.topic, &letter.object, true, None);
                self.letters.push(Letter {
                    partition: at.partition,
                    key: letter.topic_key(),
                    value: Some(letter.to_json()),
                    headers: Some(letter.headers()),
                });
                self.dead.insert(letter.key, letter.version);
            }
            Verdict::Blocked(error) => return Err((at.topic.to_owned(), *error)),
        }
        Ok(())
    }

    fn read(&mut self, at: &At<'_>) {
        // Messages of a partition come in a row, so it is mostly the last one.
        let known = self
            .spans
            .iter_mut()
            .rev()
            .find(|span| span.place.partition == at.partition && span.place.topic == at.topic);
        match known {
            Some(span) => span.next = at.offset + 1,
            None => self.spans.push(Span {
                place: Place::new(at.topic, at.partition),
                start: at.offset,
                next: at.offset + 1,
            }),
        }
    }

    fn tally(&mut self, topic: &str, object: &str, dead: bool, extracted_at: Option<Millis>) {
        match self.tallies.last_mut() {
            Some(last) if last.dead == dead && last.object == object && last.topic == topic => {
                last.number += 1;
                last.extracted_at = extracted_at;
            }
            _ => self.tallies.push(Tally {
                topic: topic.to_owned(),
                object: object.to_owned(),
                dead,
                number: 1,
                extracted_at,
            }),
        }
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
        Ok(())
    }
}

impl<T: Transformer> Desk<T> {
    fn share(&self, messages: &[BorrowedMessage<'_>], part: &mut Part) {
        let mut out = Outputs::default();
        for message in messages {
            let verdict = self.one(message, &mut out, part);
            part.verdicts.push(verdict);
        }
    }

    fn one<'t>(
        &'t self,
        message: &BorrowedMessage<'_>,
        out: &mut Outputs<'t>,
        part: &mut Part,
    ) -> Verdict {
        let key = message.key().unwrap_or_default();
        if key == INCARNATION {
            return Verdict::Passed;
        }
        let value = message.payload().unwrap_or_default();
        let envelope = match Envelope::decode(value) {
            Ok(envelope) => envelope,
            Err(error) if error.class() == Class::Record => {
                return dead(message, &error, 0, value);
            }
            Err(error) => {
                let place = Place::new(message.topic(), message.partition());
                return blocked(error.at(format!("{place}@{}", message.offset())));
            }
        };
        if let Err(error) = names_itself(&envelope, key) {
            let version = match error.code {
                Code::ForeignBytes => 0,
                _ => envelope.version,
            };
            return dead(message, &error, version, value);
        }
        out.clear();
        match self.transformer.write(&envelope, out) {
            Ok(()) => {}
            Err(error) if error.class() == Class::Record => {
                return dead(message, &error, envelope.version, value);
            }
            Err(error) => return blocked(error.at(String::from_utf8_lossy(key))),
        }
        let (data, outputs) = (part.data.len(), part.outputs.len());
        match self.place(&envelope, key, out, part) {
            Ok(()) => Verdict::Transformed {
                version: envelope.version,
                extracted_at: envelope.extracted_at,
            },
            Err(error) => {
                part.data.truncate(data);
                part.outputs.truncate(outputs);
                dead(message, &error, envelope.version, b"")
            }
        }
    }

    /// Puts a record's outputs into their envelopes.
    fn place(
        &self,
        raw: &Envelope<'_>,
        key: &[u8],
        out: &Outputs<'_>,
        part: &mut Part,
    ) -> Result<()> {
        for output in out.iter() {
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
            Envelope {
                slot: output.slot,
                op,
                reason,
                mapping: self.generation,
                fingerprint: Fingerprint::of(op, body_schema, body.unwrap_or_default()),
                body_schema,
                body,
                ..raw.clone()
            }
            .encode_into(&mut part.data);
            let end = part.data.len();
            if end - split > MAX_RECORD {
                let message = format!("{} bytes when mapped, at most {MAX_RECORD}", end - split);
                return Err(Error::new(Code::TooLarge, message));
            }
            part.outputs.push(Placed {
                topic: place_of(output.entity),
                key: start..split,
                value: split..end,
            });
        }
        Ok(())
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

fn blocked(error: Error) -> Verdict {
    Verdict::Blocked(Box::new(error))
}

fn dead(message: &BorrowedMessage<'_>, error: &Error, version: Millis, value: &[u8]) -> Verdict {
    let origin = Origin {
        place: Place::new(message.topic(), message.partition()),
        offset: message.offset(),
    };
    let key = String::from_utf8_lossy(message.key().unwrap_or_default());
    Verdict::Dead(Box::new(DeadLetter::new(
        Stage::Transformer,
        &key,
        error,
        &origin,
        version,
        None,
        now(),
        value,
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "salesforce/Contact/1";

    fn at(partition: i32, offset: i64) -> At<'static> {
        At {
            topic: "raw",
            partition,
            offset,
            key: KEY.as_bytes(),
            length: 10,
        }
    }

    fn good(version: Millis) -> Verdict {
        Verdict::Transformed {
            version,
            extracted_at: version,
        }
    }

    fn bad(version: Millis) -> Verdict {
        let origin = Origin {
            place: Place::new("raw", 0),
            offset: 0,
        };
        let error = Error::new(Code::TooLong, "300 characters");
        let stage = Stage::Transformer;
        let letter = DeadLetter::new(stage, KEY, &error, &origin, version, None, 0, b"x");
        Verdict::Dead(Box::new(letter))
    }

    /// A batch of these versions, and which of them are taken back.
    fn letters(before: &[(&str, Millis)], verdicts: Vec<Verdict>) -> (Batch, Vec<bool>) {
        let live = LiveLetters::of(Stage::Transformer);
        let before = before.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect();
        let mut batch = Batch::default();
        for (offset, verdict) in verdicts.into_iter().enumerate() {
            batch
                .note(&at(0, offset as i64), verdict, &live, &before)
                .expect("no lane is blocked");
        }
        let tombstones = batch.letters.iter().map(|l| l.value.is_none()).collect();
        (batch, tombstones)
    }

    #[test]
    fn a_success_takes_back_a_letter_of_its_own_batch() {
        let (batch, tombstones) = letters(&[], vec![bad(1), good(2), good(3)]);
        assert_eq!(tombstones, [false, true]);
        assert!(batch.dead.is_empty());
        let (batch, tombstones) = letters(&[], vec![bad(5), good(4)]);
        assert_eq!(tombstones, [false], "an older version takes nothing back");
        assert_eq!(batch.dead.get(KEY), Some(&5));
    }

    #[test]
    fn a_success_takes_back_a_letter_that_is_being_committed() {
        let (_, tombstones) = letters(&[(KEY, 1)], vec![good(2)]);
        assert_eq!(tombstones, [true]);
        let (_, tombstones) = letters(&[(KEY, 3), ("other", 1)], vec![good(2)]);
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
                .note(&at(partition, offset), verdict, &live, &HashMap::new())
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
