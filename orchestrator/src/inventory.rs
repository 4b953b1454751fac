//! `drover topics`: what lies in which topic.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use drover_pipeline::Result as PipelineResult;
use drover_pipeline::balance::{Hash, hash_of};
use drover_pipeline::control::Plan;
use drover_pipeline::kafka::Place;
use drover_pipeline::kafka::client::Client;
use drover_pipeline::kafka::compacted::{Scanned, scan_ranges};
use drover_pipeline::record::Millis;
use drover_pipeline::status::now;
use drover_pipeline::topics::{Cleanup, Topic};
use serde::Serialize;

use crate::cli::{Format, blocking, print, print_json, with_patience};
use crate::failure::Result;
use crate::migration::Bus;
use crate::table::{Column, number, seconds, table, wrap};

/// How far before its end a partition's newest record is looked for at first;
/// ten times as far each time that only markers of transactions were met.
const STEP: i64 = 20;

/// A topic and what lies in it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    topic: String,
    partitions: i32,
    cleanup: &'static str,
    writer: &'static str,
    readers: &'static str,
    /// Offsets between the log's start and its end: records, superseded ones and
    /// markers of transactions among them, without what `init` wrote. Null when the
    /// topic is not there.
    offsets: Option<u64>,
    /// When the oldest record still there was written; what `init` wrote not counted.
    oldest: Option<Millis>,
    /// When the newest was.
    newest: Option<Millis>,
    /// Live keys, and the bytes of their keys and values before compression;
    /// counted on demand only.
    live: Option<u64>,
    live_bytes: Option<u64>,
}

pub(crate) async fn run(file: &Path, format: Format, live: bool) -> Result<()> {
    let bus = Arc::new(Bus::load(file)?);
    let reading = {
        let bus = Arc::clone(&bus);
        blocking(move || list(&bus, live))
    };
    let listed = with_patience("reading the topics", reading).await?;
    match format {
        Format::Json => print_json(&listed),
        Format::Table => print(&render(&listed, now())),
    }
    Ok(())
}

fn list(bus: &Bus, live: bool) -> PipelineResult<Vec<Listed>> {
    let plan = Plan::read(&bus.client, &bus.topics)?;
    let topics = bus.topics.all(
        plan.objects.iter().map(|o| (o.name.as_str(), o.custom)),
        plan.entities.iter().map(String::as_str),
    );
    let there = crate::offsets::Group::open(&bus.client, "drover-reader")?;
    let names: Vec<String> = topics.iter().map(|topic| topic.name.clone()).collect();
    let ends = there.ends(&names)?;
    // All topics at once: a reader of its own for each takes longer than reading.
    let (oldest, newest) = (oldest(&bus.client, &ends)?, newest(&bus.client, &ends)?);
    topics
        .iter()
        .map(|topic| {
            let ranges = ends.iter().filter(|(place, _)| place.topic == topic.name);
            let ranges: Ranges = ranges
                .map(|(place, range)| (place.clone(), *range))
                .collect();
            let mut listed = one(bus, topic, &ranges, live)?;
            listed.oldest = oldest.get(&topic.name).copied();
            listed.newest = newest.get(&topic.name).copied();
            Ok(listed)
        })
        .collect()
}

fn one(bus: &Bus, topic: &Topic, ranges: &Ranges, live: bool) -> PipelineResult<Listed> {
    let role = bus.topics.role(&topic.name);
    let mut listed = Listed {
        topic: topic.name.clone(),
        partitions: topic.partitions,
        cleanup: match topic.cleanup {
            Cleanup::Compact => "compact",
            Cleanup::Forever => "keep",
            Cleanup::CompactExpire => "compact, a day",
        },
        writer: role.writer,
        readers: role.readers,
        offsets: None,
        oldest: None,
        newest: None,
        live: None,
        live_bytes: None,
    };
    if ranges.is_empty() {
        return Ok(listed);
    }
    let offsets: i64 = ranges.values().map(offsets).sum();
    listed.offsets = u64::try_from(offsets).ok();
    if live {
        let (keys, bytes) = count(&bus.client, ranges)?;
        (listed.live, listed.live_bytes) = (Some(keys), Some(bytes));
    }
    Ok(listed)
}

/// The offsets of a partition without that of the record that `init` writes first:
/// a new topic is empty. Compaction keeps that record, retention takes it away with
/// the log's start.
fn offsets((low, high): &(i64, i64)) -> i64 {
    let first = i64::from(*low == 0 && *high > 0);
    high - low - first
}

type Ranges = BTreeMap<Place, (i64, i64)>;

/// When the first record of each partition was written: by topic, the oldest.
fn oldest(client: &Client, ranges: &Ranges) -> PipelineResult<HashMap<String, Millis>> {
    let mut step = STEP;
    let mut open = ranges.clone();
    let mut oldest: HashMap<String, Millis> = HashMap::new();
    while !open.is_empty() {
        let part = open
            .iter()
            .map(|(place, (low, high))| (place.clone(), (*low, (low + step).min(*high))));
        let mut met = HashMap::new();
        times(client, &part.collect(), &mut |place, at| {
            met.entry(place).or_insert(at);
        })?;
        for (place, at) in &met {
            let known = oldest.entry(place.topic.clone()).or_insert(*at);
            *known = (*known).min(*at);
        }
        open.retain(|place, (low, high)| !met.contains_key(place) && *low + step < *high);
        step *= 10;
    }
    Ok(oldest)
}

/// When the last record of each partition was written: by topic, the newest.
fn newest(client: &Client, ranges: &Ranges) -> PipelineResult<HashMap<String, Millis>> {
    let mut step = STEP;
    let mut open = ranges.clone();
    let mut newest: HashMap<String, Millis> = HashMap::new();
    while !open.is_empty() {
        let part = open
            .iter()
            .map(|(place, (low, high))| (place.clone(), ((high - step).max(*low), *high)));
        let mut met = HashMap::new();
        times(client, &part.collect(), &mut |place, at| {
            met.insert(place, at);
        })?;
        for (place, at) in &met {
            let known = newest.entry(place.topic.clone()).or_insert(*at);
            *known = (*known).max(*at);
        }
        open.retain(|place, (low, high)| !met.contains_key(place) && *high - step > *low);
        step *= 10;
    }
    Ok(newest)
}

fn times(
    client: &Client,
    ranges: &Ranges,
    each: &mut dyn FnMut(Place, Millis),
) -> PipelineResult<()> {
    scan_ranges(client, ranges, |record: &Scanned<'_>| {
        if let Some(at) = record.at {
            each(Place::new(record.topic, record.partition), at);
        }
        Ok(())
    })
}

/// How many keys live, and the bytes of their newest records.
fn count(client: &Client, ranges: &Ranges) -> PipelineResult<(u64, u64)> {
    let mut keys: HashMap<Hash, u32> = HashMap::new();
    scan_ranges(client, ranges, |record| {
        // The partition is part of the key: a dead letter's key may lie in two.
        let text = String::from_utf8_lossy(record.key);
        let key = hash_of(&format!("{}/{text}", record.partition));
        match record.value {
            Some(value) => {
                let bytes = record.key.len() + value.len();
                keys.insert(key, u32::try_from(bytes).unwrap_or(u32::MAX));
            }
            None => {
                keys.remove(&key);
            }
        }
        Ok(())
    })?;
    let bytes = keys.values().map(|bytes| u64::from(*bytes)).sum();
    Ok((keys.len() as u64, bytes))
}

fn render(listed: &[Listed], now: Millis) -> String {
    let counted = listed.iter().any(|topic| topic.live.is_some());
    let mut columns = vec![Column::Text("TOPIC")];
    // How a topic is made gives way to what is counted: names stay whole.
    if !counted {
        columns.extend([Column::Number("PARTS"), Column::Text("CLEANUP")]);
    }
    columns.extend(["OFFSETS", "OLDEST", "NEWEST"].map(Column::Number));
    if counted {
        columns.extend(["LIVE", "BYTES"].map(Column::Number));
    }
    let prefix = common(listed);
    let ago = |at: Option<Millis>| {
        let age = at.map(|at| u64::try_from((now - at) / 1000).unwrap_or(0));
        seconds(age)
    };
    let or_none = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), number);
    let rows: Vec<Vec<String>> = listed
        .iter()
        .map(|topic| {
            let mut row = vec![topic.topic[prefix.len()..].to_owned()];
            if !counted {
                row.extend([topic.partitions.to_string(), topic.cleanup.to_owned()]);
            }
            row.extend([
                topic.offsets.map_or_else(|| "missing".to_owned(), number),
                ago(topic.oldest),
                ago(topic.newest),
            ]);
            if counted {
                row.push(or_none(topic.live));
                row.push(topic.live_bytes.map_or_else(|| "-".to_owned(), size));
            }
            row
        })
        .collect();
    let mut text = format!("{prefix}…\n\n{}", table(&columns, &rows));
    text.push('\n');
    let roles: Vec<Vec<String>> = listed
        .iter()
        .map(|topic| {
            vec![
                topic.topic[prefix.len()..].to_owned(),
                topic.writer.to_owned(),
                topic.readers.to_owned(),
            ]
        })
        .collect();
    let columns = [
        Column::Text("TOPIC"),
        Column::Text("WRITTEN BY"),
        Column::Text("READ BY"),
    ];
    text.push_str(&table(&columns, &roles));
    text.push('\n');
    let note = match counted {
        true => "BYTES: keys and values of the live records, before compression",
        false => {
            "OFFSETS counts superseded records too, and the markers with which each transaction \
             ends; --live reads all topics and counts live keys and their bytes"
        }
    };
    text.push_str(&wrap(note, ""));
    text
}

/// What all names begin with, up to a dot.
fn common(listed: &[Listed]) -> String {
    let Some(first) = listed.first() else {
        return String::new();
    };
    let mut prefix = first.topic.as_str();
    for topic in listed {
        while !topic.topic.starts_with(prefix) {
            prefix = &prefix[..prefix.len() - 1];
        }
    }
    prefix[..prefix.rfind('.').map_or(0, |at| at + 1)].to_owned()
}

/// Bytes, in at most six characters.
fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 1000.0 {
            return match unit {
                "B" => format!("{bytes} B"),
                _ => format!("{value:.1} {unit}"),
            };
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_init_has_just_made_is_empty() {
        assert_eq!(offsets(&(0, 1)), 0);
        assert_eq!(offsets(&(0, 5)), 4);
        assert_eq!(offsets(&(0, 0)), 0, "not stamped yet");
        assert_eq!(offsets(&(3, 5)), 2, "retention has taken it away");
    }

    #[test]
    fn it_fits_a_terminal() {
        let topic = |name: &str, offsets| Listed {
            topic: format!("drover.mig-tenant-123.{name}"),
            partitions: 12,
            cleanup: "compact",
            writer: "loader, orchestrator",
            readers: "transformer, orchestrator",
            offsets,
            oldest: Some(0),
            newest: Some(90_000),
            live: Some(12_345_678),
            live_bytes: Some(987_654_321),
        };
        let long = "raw.salesforce.a-rather-long-name-of-a-custom-object-0123ab";
        let listed = [topic(long, Some(99_999_999)), topic("status", None)];
        let text = render(&listed, 100_000);
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        for part in [
            "drover.mig-tenant-123.…",
            "99999999",
            "missing",
            "987.7 MB",
            "10s",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
