//! `drover parked`: what waits, what it waits for, and having it judged again.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use drover_pipeline::Code;
use drover_pipeline::control::Plan;
use drover_pipeline::kafka::compacted::scan;
use drover_pipeline::parking::Parked;
use drover_pipeline::record::{CanonicalKey, Millis};
use drover_pipeline::status::now;
use serde::Serialize;
use serde_json::Value;

mod release;
mod why;

use crate::cli::{Format, blocking, print, print_json, tell};
use crate::failure::Result;
use crate::migration::Bus;
use crate::table::{seconds, wrap};
use crate::when;

/// How many of the most wanted parents are shown.
const WANTED: usize = 10;

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Group them by reason, the most wanted parents first.
    List,
    /// Follow what a record waits for to its root.
    Why {
        /// The record's key: source/object/id, with or without #slot.
        key: String,
    },
    /// Have their owner judge them again, in their own order.
    Release(Release),
}

#[derive(Args)]
pub(crate) struct Release {
    /// The record's key: source/object/id, with or without #slot.
    key: Option<String>,
    /// All that wait for this reason.
    #[arg(long, value_enum, conflicts_with = "key")]
    reason: Option<ReasonName>,
    /// Load them without the link to the parent that is missing. It is made as
    /// soon as the parent comes.
    #[arg(long)]
    without_link: bool,
    /// Only show what would be released.
    #[arg(long)]
    dry_run: bool,
    /// How many seconds to wait for the outcomes; 0 does not wait.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    wait: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReasonName {
    /// A required parent is not in the target.
    Parent,
    /// An earlier request may still be on its way.
    Lease,
    /// A person must decide.
    Decision,
}

impl ReasonName {
    fn as_str(self) -> &'static str {
        match self {
            ReasonName::Parent => "parent",
            ReasonName::Lease => "lease",
            ReasonName::Decision => "decision",
        }
    }
}

pub(crate) async fn run(verb: Verb, file: &Path, format: Format) -> Result<ExitCode> {
    let bus = Bus::load(file)?;
    match verb {
        Verb::List => {
            let groups = blocking(move || read(&bus).map(|all| group(&all))).await?;
            match format {
                Format::Json => print_json(&groups),
                Format::Table => print(&render(&groups, now())),
            }
        }
        Verb::Why { key } => why::run(bus, key, format).await?,
        Verb::Release(options) => return release::run(bus, options, format).await,
    }
    Ok(ExitCode::SUCCESS)
}

/// What waits, by key.
fn read(bus: &Bus) -> drover_pipeline::Result<BTreeMap<String, Parked>> {
    // Of a migration that was not initialised this says so, and not which of its
    // topics is missing.
    Plan::read(&bus.client, &bus.topics)?;
    let mut all = BTreeMap::new();
    scan(&bus.client, &bus.topics.parked(), |_, _, key, value| {
        let key = String::from_utf8_lossy(key).into_owned();
        match value.map(serde_json::from_slice) {
            Some(Ok(parked)) => {
                all.insert(key, parked);
            }
            Some(Err(_)) => tell(format_args!(
                "{}: the parked record {key} is not readable; {}",
                Code::ForeignBytes,
                Code::ForeignBytes.advice()
            )),
            None => {
                all.remove(&key);
            }
        }
    })?;
    Ok(all)
}

/// A reason's name.
fn kind(reason: &Value) -> &str {
    reason["kind"].as_str().unwrap_or("unknown")
}

/// What a record waits for, as JSON.
fn reason_of(parked: &Parked) -> Value {
    serde_json::to_value(&parked.reason).unwrap_or_default()
}

/// What a record waits for, for a person.
pub(crate) fn reason_text(reason: &Value) -> String {
    let parents: Vec<&str> = reason["parents"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let parents = parents.join(", ");
    match kind(reason) {
        "parent" => format!("for {}", reason["parent"].as_str().unwrap_or("-")),
        "link" => format!("in the target; its optional link waits for {parents}"),
        "dropped" => format!("in the target without its link to {parents}, which never comes"),
        "lease" => "for the fate of an earlier request, which may still be on its way".to_owned(),
        "decision" => "for a person's decision".to_owned(),
        other => format!("for {other}"),
    }
}

/// What waits for one reason.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    reason: String,
    count: u64,
    /// Since when the oldest waits.
    oldest: Millis,
    example: String,
    /// How many parents are waited for.
    parents: usize,
    /// The most wanted of them.
    wanted: Vec<Wanted>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Wanted {
    parent: String,
    count: u64,
}

fn group(all: &BTreeMap<String, Parked>) -> Vec<Group> {
    let mut groups: BTreeMap<String, (Group, HashMap<&CanonicalKey, u64>)> = BTreeMap::new();
    for (key, parked) in all {
        let reason = kind(&reason_of(parked)).to_owned();
        let (group, wanted) = groups.entry(reason.clone()).or_insert_with(|| {
            let group = Group {
                reason,
                count: 0,
                oldest: parked.since,
                example: key.clone(),
                parents: 0,
                wanted: Vec::new(),
            };
            (group, HashMap::new())
        });
        group.count += 1;
        if parked.since < group.oldest {
            group.oldest = parked.since;
            group.example = key.clone();
        }
        for parent in parked.reason.parents() {
            *wanted.entry(parent).or_default() += 1;
        }
    }
    let mut groups: Vec<Group> = groups
        .into_values()
        .map(|(mut group, wanted)| {
            let mut wanted: Vec<Wanted> = wanted
                .into_iter()
                .map(|(parent, count)| Wanted {
                    parent: parent.to_string(),
                    count,
                })
                .collect();
            wanted.sort_by(|a, b| b.count.cmp(&a.count).then(a.parent.cmp(&b.parent)));
            group.parents = wanted.len();
            wanted.truncate(WANTED);
            group.wanted = wanted;
            group
        })
        .collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.count));
    groups
}

fn render(groups: &[Group], now: Millis) -> String {
    if groups.is_empty() {
        return "nothing waits\n".to_owned();
    }
    // What is in the target without a link that never comes waits for nothing.
    let waits = groups.iter().filter(|group| group.reason != "dropped");
    let mut text = match waits.map(|group| group.count).sum::<u64>() {
        0 => "nothing waits; these are in the target:\n".to_owned(),
        1 => "1 record waits\n".to_owned(),
        total => format!("{total} records wait\n"),
    };
    for group in groups {
        let what = match group.reason.as_str() {
            "parent" => "a required parent is not in the target",
            "link" => "in the target; an optional link is not possible yet",
            "dropped" => "in the target without a link that never comes",
            "lease" => "an earlier request may still be on its way",
            "decision" => "a person must decide",
            _ => "",
        };
        let oldest = seconds(Some(when::age(group.oldest, now)));
        let line = format!("{}: {what}; the oldest for {oldest}", group.reason);
        text.push_str(&format!("\n{:>7}  ", group.count));
        text.push_str(wrap(&line, "         ").trim_start());
        for wanted in &group.wanted {
            let line = format!("{:>7} for {}", wanted.count, wanted.parent);
            text.push_str(&format!("         {}\n", crate::table::fit(&line, 71)));
        }
        if group.parents > group.wanted.len() {
            let more = group.parents - group.wanted.len();
            text.push_str(&format!("                 and for {more} more\n"));
        }
        let why = format!("drover parked why '{}'", group.example);
        text.push_str(&wrap(&why, "         "));
    }
    text
}

#[cfg(test)]
mod tests {
    use drover_pipeline::parking::Reason;
    use drover_pipeline::record::Order;

    use super::*;

    fn key(text: &str) -> CanonicalKey {
        CanonicalKey::parse(text).expect("a key")
    }

    fn waits(parent: &str, since: Millis) -> Parked {
        let reason = Reason::Parent {
            parent: key(parent),
        };
        Parked::new(reason, "contact", Order::default(), since, b"x")
    }

    #[test]
    fn the_most_wanted_parent_comes_first() {
        let mut all = BTreeMap::new();
        for n in 0..5 {
            all.insert(
                format!("s/Contact/{n}#contact"),
                waits("s/Account/1#company", 10_000 + n),
            );
        }
        all.insert(
            "s/Contact/9#contact".into(),
            waits("s/Account/2#company", 5_000),
        );
        let lease = Parked::new(Reason::Lease, "contact", Order::default(), 7_000, b"x");
        all.insert("s/Contact/8#contact".into(), lease);
        let groups = group(&all);
        assert_eq!(groups.iter().map(|g| g.count).collect::<Vec<_>>(), [6, 1]);
        let wanted: Vec<(&str, u64)> = groups[0]
            .wanted
            .iter()
            .map(|w| (w.parent.as_str(), w.count))
            .collect();
        assert_eq!(
            wanted,
            [("s/Account/1#company", 5), ("s/Account/2#company", 1)]
        );
        assert_eq!(
            (groups[0].oldest, groups[0].example.as_str()),
            (5_000, "s/Contact/9#contact")
        );
        let text = render(&groups, 65_000);
        assert!(
            text.starts_with("7 records wait\n\n      6  parent: "),
            "{text}"
        );
        assert!(text.contains("the oldest for 60s"), "{text}");
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        assert_eq!(render(&[], 0), "nothing waits\n");
        let parents = vec![key("s/Account/1#company")];
        let dropped = Reason::Dropped { parents };
        let dropped = Parked::new(dropped, "contact", Order::default(), 0, b"x");
        let text = render(&group(&[("s/Contact/1#contact".into(), dropped)].into()), 0);
        assert!(text.starts_with("nothing waits; these are in the target:\n\n      1  dropped: "));
    }
}
