//! `drover balance`: proves that every record is in exactly one place, or names
//! those that are not. The last result lies in the topic `control`, where
//! `drover status` finds it.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use drover_pipeline::balance::{BALANCE, Balance, Red, Row};
use drover_pipeline::config::{Mappings, WHERE};
use drover_pipeline::control::Plan;
use drover_pipeline::spec::Stage;
use drover_pipeline::{Code, Error};

pub(crate) mod facts;
mod look;

use crate::cli::{Format, blocking, print, print_json, tell};
use crate::connectors::Connectors;
use crate::failure::{Failure, Result};
use crate::migration::Bus;
use crate::table::{Column, folded, number, table, wrap};
use crate::topics::Broker;
pub(crate) use look::Slots;

/// How many red keys the table names, and how many are kept in `control`.
const NAMED: usize = 20;

/// How often the progress of a long reading is told.
const TELL: Duration = Duration::from_secs(3);

pub(crate) async fn run(file: &Path, format: Format) -> Result<ExitCode> {
    let bus = Arc::new(Bus::load(file)?);
    let plan = {
        let bus = Arc::clone(&bus);
        blocking(move || Plan::read(&bus.client, &bus.topics)).await?
    };
    let taken = taken(&bus).await?;
    let balance = take(&bus, plan, taken).await?;
    match format {
        Format::Json => print_json(&balance),
        Format::Table => print(&render(&balance)),
    }
    if balance.balanced {
        return Ok(ExitCode::SUCCESS);
    }
    Err(red(&balance).into())
}

/// What is said of a balance that does not hold.
pub(crate) fn red(balance: &Balance) -> Failure {
    let first = balance.red.first().map_or("", |red| red.key.as_str());
    let message = format!(
        "{} records are in no place, or in two; the first is {first}",
        balance.reds()
    );
    Error::new(Code::Unbalanced, message).into()
}

/// The entities that the target takes; `None` where nobody can be asked, as
/// then all of them count.
pub(crate) async fn taken(bus: &Bus) -> Result<Option<Vec<String>>> {
    if bus.config.dry_run {
        return Ok(Some(Vec::new()));
    }
    let found = Connectors::of_process().find(Stage::Loader, &bus.config.target_type);
    let Some(connector) = found else {
        return Ok(None);
    };
    let entities = connector.spec().await?.entities;
    Ok((!entities.is_empty()).then_some(entities))
}

/// Takes a balance and keeps its result in `control`.
pub(crate) async fn take(
    bus: &Arc<Bus>,
    plan: Plan,
    taken: Option<Vec<String>>,
) -> Result<Balance> {
    let bus = Arc::clone(bus);
    blocking(move || -> Result<Balance, Error> {
        let slots = slots(&plan, taken.as_deref());
        let mut told = Instant::now();
        let balance = look::take(&bus, &plan, &slots, &mut |what, done, all| {
            if told.elapsed() > TELL {
                told = Instant::now();
                tell(format_args!(
                    "balance: {what}, {done} of {all} records at the most"
                ));
            }
        })?;
        let kept = Balance {
            red: balance.red.iter().take(NAMED).cloned().collect(),
            ..balance.clone()
        };
        Broker::new(&bus.client)?.write(&bus.topics.control(), BALANCE, &kept)?;
        Ok(balance)
    })
    .await
}

/// Every declared slot, by object, and whether the target takes its entity.
pub(crate) fn slots(plan: &Plan, taken: Option<&[String]>) -> Slots {
    let of = |object| {
        let slots = plan.mapping.of(object).into_iter().flat_map(|m| &m.slots);
        slots
            .map(|(name, slot)| {
                let takes = taken.is_none_or(|taken| taken.contains(&slot.entity));
                (name.clone(), takes)
            })
            .collect()
    };
    plan.objects
        .iter()
        .map(|object| (object.name.clone(), of(object)))
        .collect()
}

/// The result in one line.
pub(crate) fn headline(balance: &Balance) -> String {
    let live: u64 = balance.rows.iter().map(|row| row.live).sum();
    match balance.balanced {
        true => format!("balanced: {live} records and slots, each in exactly one place\n"),
        false => format!(
            "NOT BALANCED: {} of {live} records and slots are in no place, or in two\n",
            balance.reds()
        ),
    }
}

/// What the mapping's filter has let go of an object, or of one of its slots.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Filtered {
    /// The object, with `#slot` where it has several.
    name: String,
    /// The records that were let go.
    filtered: u64,
    /// All that were read.
    read: u64,
}

/// What a person should see of filters: what those of the migration itself let go,
/// and an object of which nothing is left. How a connector's own rules share an
/// object's records among its slots is no news.
pub(crate) fn filtered(balance: &Balance, own: &Mappings) -> Vec<Filtered> {
    let beside = |one: &Row| -> Vec<&Row> {
        let rows = balance.rows.iter();
        rows.filter(|row| row.object == one.object).collect()
    };
    let is_gone = |row: &&Row| row.absent.filtered == row.live;
    let is_told = |row: &&Row| {
        let asked = own.filters.contains_key(&row.object);
        row.absent.filtered > 0 && (asked || beside(row).iter().all(is_gone))
    };
    let rows = balance.rows.iter().filter(is_told).map(|row| Filtered {
        name: match beside(row).len() {
            1 => row.object.clone(),
            _ => format!("{}#{}", row.object, row.slot),
        },
        filtered: row.absent.filtered,
        read: row.live,
    });
    rows.collect()
}

/// The same as text; nothing where there is nothing to tell.
pub(crate) fn let_go(filtered: &[Filtered]) -> String {
    let each = filtered.iter().map(|one| {
        let Filtered {
            name,
            filtered,
            read,
        } = one;
        format!("{name} {filtered} of {read}")
    });
    match filtered.is_empty() {
        true => String::new(),
        false => wrap(
            &format!(
                "filtered out by the mapping (`{WHERE}`): {}",
                each.collect::<Vec<_>>().join(", ")
            ),
            "",
        ),
    }
}

/// The whole result, in 80 columns.
fn render(balance: &Balance) -> String {
    let mut text = headline(balance);
    text.push_str("Told by the topics alone: neither the source nor the target was asked.\n\n");
    let columns = [
        Column::Text("OBJECT"),
        Column::Text("SLOT"),
        Column::Number("LIVE"),
        Column::Number("APPLIED"),
        Column::Number("ABSENT"),
        Column::Number("PARKED"),
        Column::Number("DEAD"),
        Column::Number("MOVING"),
        Column::Number("RED"),
    ];
    let row = |row: &Row| {
        let counts = [
            row.live,
            row.applied,
            row.absent.total(),
            row.parked,
            row.dead,
            row.in_flight,
            row.red,
        ];
        let names = [&row.object, &row.slot].map(Clone::clone);
        names.into_iter().chain(counts.map(number)).collect()
    };
    let is_empty = |row: &Row| {
        *row == Row {
            object: row.object.clone(),
            slot: row.slot.clone(),
            ..Row::default()
        }
    };
    let empty = balance.rows.iter().filter(|row| is_empty(row)).count();
    let fold = folded(empty, balance.rows.len());
    let shown = balance
        .rows
        .iter()
        .filter(|row| fold.is_none() || !is_empty(row));
    let rows: Vec<Vec<String>> = shown.map(row).collect();
    text.push_str(&table(&columns, &rows));
    text.push_str(&fold.unwrap_or_default());
    text.push_str(&absences(balance));
    let linking: u64 = balance.rows.iter().map(|row| row.linking).sum();
    if linking > 0 {
        text.push_str(&format!(
            "\n{linking} of the applied wait for an optional link\n"
        ));
    }
    let unlinked: u64 = balance.rows.iter().map(|row| row.unlinked).sum();
    if unlinked > 0 {
        text.push_str(&format!(
            "\n{unlinked} of the applied lack a link whose other end never comes\n"
        ));
    }
    for red in balance.red.iter().take(NAMED) {
        text.push_str(&named(red));
    }
    let more = balance.reds().saturating_sub(NAMED as u64);
    if more > 0 {
        text.push_str(&format!(
            "\n… and {more} more; `--format json` names them\n"
        ));
    }
    text
}

/// Why slots have nothing, where any has.
fn absences(balance: &Balance) -> String {
    let columns = [
        Column::Text("ABSENT"),
        Column::Text("SLOT"),
        Column::Number("DELETED"),
        Column::Number("FILTERED"),
        Column::Number("EMPTY"),
        Column::Number("UNTAKEN"),
    ];
    let some = balance.rows.iter().filter(|row| row.absent.total() > 0);
    let rows: Vec<Vec<String>> = some
        .map(|row| {
            let absent = row.absent;
            let counts = [
                absent.deleted,
                absent.filtered,
                absent.slot_empty,
                absent.untaken,
            ];
            let names = [&row.object, &row.slot].map(Clone::clone);
            names.into_iter().chain(counts.map(number)).collect()
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let filtered = balance.rows.iter().any(|row| row.absent.filtered > 0);
    let note = filtered.then(|| {
        let line = format!("FILTERED: let go by `{WHERE}`, or by the connector's own mapping");
        wrap(&line, "")
    });
    format!("\n{}{}", table(&columns, &rows), note.unwrap_or_default())
}

fn named(red: &Red) -> String {
    // A key is never cut: it is what a person looks for.
    let mut text = format!("\n{} ({})\n", red.key, red.fault);
    text.push_str(&wrap(&format!("{}; {}", red.why, red.advice), "    "));
    text
}

#[cfg(test)]
mod tests {
    use drover_pipeline::balance::{Absences, Fault};

    use super::*;

    #[test]
    fn an_object_that_a_filter_leaves_out_is_seen() {
        let row = |object: &str, slot: &str, live, filtered| Row {
            object: object.into(),
            slot: slot.into(),
            live,
            applied: live - filtered,
            absent: Absences {
                filtered,
                ..Absences::default()
            },
            ..Row::default()
        };
        let balance = Balance {
            balanced: true,
            at: 0,
            generation: 1,
            took_ms: 1,
            looks: 1,
            rows: vec![
                row("Account", "company", 1000, 1000),
                row("Contact", "contact", 700, 12),
                row("Lead", "company", 20, 5),
                row("Lead", "contact", 20, 6),
                row("Task", "activity", 9, 4),
                row("Task", "task", 9, 5),
                row("User", "user", 0, 0),
            ],
            red: Vec::new(),
        };
        // Contact and Lead have filters of the migration, Account one of the connector.
        let mut own = Mappings::default();
        for object in ["Contact", "Lead", "User"] {
            own.filters.insert(object.into(), Default::default());
        }
        let text = let_go(&filtered(&balance, &own));
        assert_eq!(
            text.split_whitespace().collect::<Vec<_>>().join(" "),
            "filtered out by the mapping (`$where`): Account 1000 of 1000, Contact 12 of 700, \
             Lead#company 5 of 20, Lead#contact 6 of 20"
        );
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        let rows = vec![row("Contact", "contact", 700, 0)];
        assert_eq!(let_go(&filtered(&Balance { rows, ..balance }, &own)), "");
    }

    #[test]
    fn it_fits_a_terminal_and_names_what_is_red() {
        let (fault, why, advice) = Fault::NotApplied.facts();
        let row = Row {
            object: "OpportunityContactRole".into(),
            slot: "association".into(),
            live: 12_345_678,
            applied: 12_000_000,
            linking: 3,
            unlinked: 2,
            absent: Absences {
                deleted: 345_000,
                ..Absences::default()
            },
            parked: 600,
            dead: 70,
            in_flight: 7,
            red: 1,
        };
        let balance = Balance {
            balanced: false,
            at: 0,
            generation: 1,
            took_ms: 1,
            looks: 2,
            rows: vec![row.clone(), row],
            red: vec![Red {
                key: "salesforce/Contact/003#contact".into(),
                fault: fault.into(),
                why: why.into(),
                advice: advice.into(),
            }],
        };
        let text = render(&balance);
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        for part in [
            "NOT BALANCED: 2 of 24691356",
            "345000",
            "6 of the applied wait",
            "4 of the applied lack a link",
            "salesforce/Contact/003#contact (not-applied)",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(red(&balance).to_string().contains("UNBALANCED: 2 records"));
    }
}
