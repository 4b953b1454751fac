//! Every topic of a migration: its name, who writes it, who reads it, and how
//! it is kept. All of them are created by `drover init`, never by auto-create.

use crate::config::MigrationConfig;
use crate::record::RawKey;

/// How a topic is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleanup {
    /// The newest value of each key is kept for ever.
    Compact,
    /// Everything is kept for ever (`cleanup.policy=delete` without retention).
    Forever,
    /// Compacted, and old values expire.
    CompactExpire,
}

impl Cleanup {
    /// Kafka's `cleanup.policy`.
    pub fn policy(self) -> &'static str {
        match self {
            Cleanup::Compact => "compact",
            Cleanup::Forever => "delete",
            Cleanup::CompactExpire => "compact,delete",
        }
    }
}

/// A topic as `init` makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// The whole name.
    pub name: String,
    /// How many partitions it has.
    pub partitions: i32,
    /// How it is kept.
    pub cleanup: Cleanup,
}

/// Who writes a topic, and who reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Role {
    /// The stages that write it.
    pub writer: &'static str,
    /// The stages that read it.
    pub readers: &'static str,
}

/// The topics of one migration. A dry run has its own.
#[derive(Debug, Clone)]
pub struct Topics {
    prefix: String,
    source: String,
    target: String,
    partitions: i32,
}

impl Topics {
    /// The topics of that migration.
    pub fn of(config: &MigrationConfig) -> Self {
        let root = if config.dry_run {
            "drover-dryrun"
        } else {
            "drover"
        };
        Topics {
            prefix: format!("{root}.{}", segment(&config.id)),
            source: segment(&config.source_type),
            target: segment(&config.target_type),
            partitions: config.kafka.partitions,
        }
    }

    /// How many partitions every data topic has. A key's partition number is
    /// the same in all of them.
    pub fn partitions(&self) -> i32 {
        self.partitions
    }

    /// `raw.<source>.<object>`: extractor → transformer. Custom objects share one.
    pub fn raw(&self, object: &str, custom: bool) -> String {
        let object = if custom {
            "custom".to_owned()
        } else {
            segment(object)
        };
        format!("{}.raw.{}.{object}", self.prefix, self.source)
    }

    /// `canonical.<entity>`: transformer → loaders.
    pub fn canonical(&self, entity: &str) -> String {
        // Entities are ours and have no hyphens, so nothing is lost.
        let name = segment(&entity.replace('_', "-"));
        format!("{}.canonical.{name}", self.prefix)
    }

    /// The entity of a canonical topic of this migration.
    pub fn entity_of<'t>(&self, topic: &'t str) -> Option<&'t str> {
        let name = topic
            .strip_prefix(&self.prefix)?
            .strip_prefix(".canonical.")?;
        let same = |entity: &&drover_schemas::Entity| {
            entity.name.len() == name.len()
                && std::iter::zip(entity.name.bytes(), name.bytes())
                    .all(|(a, b)| a == b || (a == b'_' && b == b'-'))
        };
        let known = drover_schemas::entities().iter().find(same);
        Some(known.map_or(name, |entity| &entity.name))
    }

    /// Whether that is the topic [`Topics::deadletter`]. Asked of every record of
    /// the tables, so it makes no name.
    pub fn is_deadletter(&self, topic: &str) -> bool {
        self.own(topic) == Some("deadletter")
    }

    /// Whether that is the topic [`Topics::redo`].
    pub fn is_redo(&self, topic: &str) -> bool {
        self.own(topic).and_then(|name| name.strip_prefix("redo.")) == Some(&self.target)
    }

    /// Whether that is the topic [`Topics::idempotency`].
    pub fn is_idempotency(&self, topic: &str) -> bool {
        let name = self.own(topic);
        name.and_then(|name| name.strip_prefix("idempotency.")) == Some(&self.target)
    }

    fn own<'t>(&self, topic: &'t str) -> Option<&'t str> {
        topic.strip_prefix(&self.prefix)?.strip_prefix('.')
    }

    /// `redo.<target>`: orchestrator, loader → loader.
    pub fn redo(&self) -> String {
        format!("{}.redo.{}", self.prefix, self.target)
    }

    /// `redo.transform`: orchestrator → transformer; keys are raw.
    pub fn redo_transform(&self) -> String {
        format!("{}.redo.transform", self.prefix)
    }

    /// `idempotency.<target>`: the owning loader → loaders, orchestrator.
    pub fn idempotency(&self) -> String {
        format!("{}.idempotency.{}", self.prefix, self.target)
    }

    /// `parked.<target>`: loader → loader, orchestrator.
    pub fn parked(&self) -> String {
        format!("{}.parked.{}", self.prefix, self.target)
    }

    /// `rollback.<target>`: loader → orchestrator; first touch only.
    pub fn rollback(&self) -> String {
        format!("{}.rollback.{}", self.prefix, self.target)
    }

    /// `deadletter`: all stages → orchestrator.
    pub fn deadletter(&self) -> String {
        format!("{}.deadletter", self.prefix)
    }

    /// `checkpoint`: extractor → extractor, orchestrator.
    pub fn checkpoint(&self) -> String {
        format!("{}.checkpoint", self.prefix)
    }

    /// `control`: orchestrator → all.
    pub fn control(&self) -> String {
        format!("{}.control", self.prefix)
    }

    /// `status`: all → orchestrator, by a plain producer.
    pub fn status(&self) -> String {
        format!("{}.status", self.prefix)
    }

    /// Who writes a topic of this migration, and who reads it.
    pub fn role(&self, topic: &str) -> Role {
        let rest = topic.strip_prefix(&self.prefix).unwrap_or(topic);
        let kind = rest.split('.').nth(1).unwrap_or_default();
        let (writer, readers) = match kind {
            "raw" => ("extractor", "transformer"),
            "canonical" => ("transformer", "loader"),
            "redo" if topic == self.redo_transform() => ("drover", "transformer"),
            "redo" => ("drover, loader", "loader"),
            "idempotency" => ("loader", "loader, drover"),
            "parked" => ("loader", "loader, drover"),
            "rollback" => ("loader", "drover"),
            "deadletter" => ("every stage", "every stage, drover"),
            "checkpoint" => ("extractor", "extractor, drover"),
            "control" => ("drover", "every stage, drover"),
            "status" => ("every stage", "extractor, drover"),
            _ => ("", ""),
        };
        Role { writer, readers }
    }

    /// The consumer group of the transformers.
    pub fn transform_group(&self) -> String {
        format!("{}.transform", self.prefix)
    }

    /// The consumer group of the target's loaders.
    pub fn load_group(&self) -> String {
        format!("{}.load.{}", self.prefix, self.target)
    }

    /// The transactional id of an extractor's shard.
    pub fn extract_transactional_id(&self, shard: u32) -> String {
        format!("{}.extract.{}.{shard}", self.prefix, self.source)
    }

    /// The transactional id of a consumer in a group: its instance name.
    pub fn transactional_id(&self, group: &str, instance: &str) -> String {
        format!("{group}.{instance}")
    }

    /// Every topic that `init` makes, for these objects and entities.
    pub fn all<'a>(
        &self,
        objects: impl IntoIterator<Item = (&'a str, bool)>,
        entities: impl IntoIterator<Item = &'a str>,
    ) -> Vec<Topic> {
        let data = |name: String| Topic {
            name,
            partitions: self.partitions,
            cleanup: Cleanup::Compact,
        };
        let single = |name: String, cleanup| Topic {
            name,
            partitions: 1,
            cleanup,
        };
        let mut topics: Vec<Topic> = objects
            .into_iter()
            .map(|(object, custom)| data(self.raw(object, custom)))
            .chain(
                entities
                    .into_iter()
                    .map(|entity| data(self.canonical(entity))),
            )
            .chain(
                [
                    self.redo(),
                    self.redo_transform(),
                    self.idempotency(),
                    self.parked(),
                    self.rollback(),
                    self.deadletter(),
                ]
                .map(data),
            )
            .chain([
                single(self.checkpoint(), Cleanup::Compact),
                single(self.control(), Cleanup::Compact),
                single(self.status(), Cleanup::CompactExpire),
            ])
            .collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        topics.dedup();
        topics
    }
}

/// The words that Drover's own topics, groups, variables and settings are made
/// of. A target `transform` would share `redo.transform` with the transformers,
/// a source `kafka` its variables with the bus; the others would only mislead.
const RESERVED: [&str; 23] = [
    "canonical",
    "checkpoint",
    "config",
    "control",
    "cursor",
    "custom",
    "deadletter",
    "drover",
    "extract",
    "extractor",
    "idempotency",
    "journal",
    "kafka",
    "load",
    "loader",
    "parked",
    "plan",
    "raw",
    "redo",
    "rollback",
    "status",
    "transform",
    "transformer",
];

/// Whether no connector may be called that.
pub fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name)
}

/// A name as a part of a topic's: lower case, and only `[a-z0-9-]`. Where
/// anything but case is lost, six hex digits of a hash keep it apart; two
/// objects that differ only in case are refused by `init`.
pub fn segment(name: &str) -> String {
    let plain: String = name
        .chars()
        .map(|c| match c.to_ascii_lowercase() {
            c @ ('a'..='z' | '0'..='9' | '-') => c,
            _ => '-',
        })
        .collect();
    if plain == name.to_ascii_lowercase() {
        plain
    } else {
        let hash = xxhash_rust::xxh3::xxh3_64(name.as_bytes());
        format!("{plain}-{:06x}", hash & 0xff_ffff)
    }
}

/// The partition of a key, as Java's and every murmur2 partitioner choose it.
///
/// Needed where a record must lie in the partition of *another* key (a dead
/// letter in its record's partition), or where a key is looked up.
/// Source: Kafka's `Utils.murmur2` and `DefaultPartitioner`.
pub fn partition_of(key: &[u8], partitions: i32) -> i32 {
    let positive = murmur2(key) & 0x7fff_ffff;
    (positive % partitions.max(1) as u32) as i32
}

/// The partition of a record's raw key.
pub fn partition_of_raw(key: &RawKey, partitions: i32) -> i32 {
    partition_of(key.as_str().as_bytes(), partitions)
}

fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut h: u32 = 0x9747_b28c ^ data.len() as u32;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (place, byte) in rest.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * place);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_is_javas() {
        // From Apache Kafka's own UtilsTest.testMurmur2.
        for (text, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            (
                "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(text.as_bytes()) as i32, hash, "{text}");
        }
    }

    #[test]
    fn an_entity_is_found_by_its_topic() {
        let topics = Topics {
            prefix: "drover.m".into(),
            source: "s".into(),
            target: "t".into(),
            partitions: 1,
        };
        for entity in drover_schemas::entities() {
            let topic = topics.canonical(&entity.name);
            assert_eq!(topics.entity_of(&topic), Some(entity.name.as_str()));
        }
        assert!(
            topics
                .canonical("line_item")
                .ends_with(".canonical.line-item")
        );
    }

    #[test]
    fn segments_keep_names_apart() {
        assert_eq!(segment("Account"), "account");
        assert_eq!(segment("mig-tenant-123"), "mig-tenant-123");
        assert_ne!(segment("Invoice__c"), segment("Invoice--c"));
        assert_ne!(segment("a.b"), segment("a_b"));
    }
}
