//! `drover status`: a view of the migration, printed.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use drover_pipeline::control::Plan;
use drover_pipeline::retry::passes;

use crate::cli::{Format, blocking, print, print_json, tell};
use crate::failure::Result;
use crate::migration::Bus;
use crate::table::{Column, number, seconds, table, wrap};
use crate::view::{Reader, View, read};

/// How often `--watch` looks.
const EVERY: Duration = Duration::from_secs(1);

pub(crate) async fn run(file: &Path, format: Format, watch: bool) -> Result<()> {
    let bus = Bus::load(file)?;
    if watch {
        return follow(bus, format).await;
    }
    let view = blocking(move || read(&bus)).await?;
    match format {
        Format::Json => print_json(&view),
        Format::Table => print(&render(&view)),
    }
    Ok(())
}

/// Prints the view until Ctrl-C, or until nobody reads it: on a terminal in
/// place, elsewhere whenever it has changed; as JSON one line a view.
async fn follow(bus: Bus, format: Format) -> Result<()> {
    let in_place = std::io::stdout().is_terminal();
    let watching = tokio::task::spawn_blocking(move || -> Result<()> {
        let plan = Plan::read(&bus.client, &bus.topics)?;
        let reader = Reader::open(&bus, plan)?;
        let watch = reader.watch_from_now()?;
        let mut shown = String::new();
        loop {
            if let Some(error) = watch.trouble() {
                tell(&error);
            }
            let text = match watch.look(|model| reader.view(model)) {
                Ok(view) => match format {
                    Format::Json => line(&view),
                    Format::Table => render(&view),
                },
                Err(error) if passes(&error) => format!("{error}\n"),
                Err(error) => return Err(error.into()),
            };
            if in_place && format == Format::Table {
                // From the top, and nothing of the last view below.
                let time = chrono::Local::now().format("%H:%M:%S");
                if !write(&format!("\x1b[H\x1b[J{text}\n{time}; Ctrl-C ends\n")) {
                    return Ok(());
                }
            } else if text != shown {
                if !write(&text) {
                    return Ok(());
                }
                shown = text;
            }
            std::thread::sleep(EVERY);
        }
    });
    tokio::select! {
        ended = watching => ended.unwrap_or(Ok(())),
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

fn line(view: &View) -> String {
    serde_json::to_string(view).unwrap_or_default() + "\n"
}

/// Whether somebody still reads.
fn write(text: &str) -> bool {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .is_ok()
}

/// The whole view, in 80 columns.
pub(crate) fn render(view: &View) -> String {
    let target = if view.dry_run {
        "nowhere (dry run)"
    } else {
        view.target.as_str()
    };
    let mut text = format!(
        "{}: {} to {target}, {}, mapping generation {}\n\n",
        view.migration, view.source, view.phase, view.generation
    );
    text.push_str(&objects(view));
    let waived: u64 = view.objects.iter().map(|object| object.waived).sum();
    if waived > 0 {
        text.push_str(&format!(
            "{waived} of the dead are waived; see `drover deadletter list`\n"
        ));
    }
    text.push_str(&balance(view));
    text.push('\n');
    text.push_str(&processes(view));
    for quota in &view.quotas {
        text.push_str(&format!("\n{}", wrap(&quota.text(), "")));
    }
    for (remark, count) in &view.remarks {
        text.push_str(&wrap(&format!("note: {remark} ({count} records)"), ""));
    }
    text
}

/// What the last balance came to.
fn balance(view: &View) -> String {
    let ago = view.balanced_at.map(|at| {
        let ago = u64::try_from((view.at - at) / 1000).unwrap_or(0);
        seconds(Some(ago))
    });
    match (view.balanced, ago) {
        (Some(true), Some(ago)) => format!("\nbalanced {ago} ago\n"),
        (Some(false), Some(ago)) => {
            format!("\nNOT BALANCED {ago} ago: `drover balance` names the records\n")
        }
        _ => "\nnot yet balanced: `drover balance` proves it\n".to_owned(),
    }
}

/// The table of objects alone.
pub(crate) fn objects(view: &View) -> String {
    let columns = [
        Column::Text("OBJECT"),
        Column::Number("EXTRACTED"),
        Column::Number("LOADED"),
        Column::Number("UNCHANGED"),
        Column::Number("STALE"),
        Column::Number("PARKED"),
        Column::Number("DEAD"),
        Column::Number("LAG"),
        Column::Number("BEHIND"),
    ];
    let rows: Vec<Vec<String>> = view
        .objects
        .iter()
        .map(|o| {
            let mut row = vec![o.object.clone()];
            let counts = [
                o.extracted,
                o.loaded,
                o.unchanged,
                o.stale,
                o.parked,
                o.dead,
                o.lag.records,
            ];
            row.extend(counts.map(number));
            row.push(seconds(o.lag.seconds));
            row
        })
        .collect();
    table(&columns, &rows)
}

fn processes(view: &View) -> String {
    if view.processes.is_empty() {
        return "no process has reported; start them by `drover run`\n".to_owned();
    }
    let columns = [
        Column::Text("PROCESS"),
        Column::Text("INSTANCE"),
        Column::Number("PID"),
        Column::Text("ALIVE"),
        Column::Text("PHASE"),
        Column::Number("REPORTED"),
    ];
    let phase = |phase| {
        serde_json::to_value(phase)
            .ok()
            .and_then(|value| value.as_str().map(str::to_owned))
            .unwrap_or_default()
    };
    let rows: Vec<Vec<String>> = view
        .processes
        .iter()
        .map(|process| {
            let ago = u64::try_from((view.at - process.at) / 1000).unwrap_or(0);
            vec![
                process.name.clone(),
                process.instance.clone(),
                process.pid.to_string(),
                if process.alive { "yes" } else { "no" }.to_owned(),
                phase(process.phase),
                format!("{} ago", seconds(Some(ago))),
            ]
        })
        .collect();
    let mut text = table(&columns, &rows);
    for process in view.processes.iter().filter(|process| process.alive) {
        for (lane, standing) in &process.lanes {
            let why = standing.waits_for.as_ref().or(standing.error.as_ref());
            let (instance, phase) = (&process.instance, phase(standing.phase));
            let what = match standing.waits_for {
                Some(_) => "waits".to_owned(),
                None => phase,
            };
            text.push_str(&format!(
                "\n{instance}, lane {lane} ({what}):\n{}",
                wrap(why.map_or("", String::as_str), "  ")
            ));
        }
    }
    for process in &view.processes {
        if let Some(error) = &process.last_error {
            let when = process.last_error_at.map(|at| {
                let ago = seconds(Some(crate::when::age(at, view.at)));
                format!(", {ago} ago")
            });
            text.push_str(&format!(
                "\n{}, last error{}:\n{}",
                process.instance,
                when.unwrap_or_default(),
                wrap(error, "  ")
            ));
        }
    }
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use drover_pipeline::status::{Edge, Lane, Phase};

    use super::*;
    use crate::view::{HopView, LagView, ObjectView, ProcessView};

    pub(crate) fn example() -> View {
        let lag = LagView {
            records: 1234,
            seconds: Some(300),
            load: HopView {
                records: Some(1234),
                seconds: None,
            },
            ..LagView::default()
        };
        View {
            migration: "mig-tenant-123".into(),
            phase: "loading",
            balanced: None,
            balanced_at: None,
            source: "salesforce".into(),
            target: "postgres".into(),
            dry_run: false,
            generation: 1,
            at: 20_000,
            objects: vec![
                ObjectView {
                    object: "A_rather_long_name_of_a_custom_object__c".into(),
                    extracted: 99_999_999,
                    loaded: 99_999_999,
                    unchanged: 123_456_789_012,
                    stale: 1_000_000,
                    parked: 100_000,
                    dead: 100_000,
                    lag,
                    ..ObjectView::default()
                },
                ObjectView {
                    object: "Contact".into(),
                    ..ObjectView::default()
                },
            ],
            remarks: [].into(),
            quotas: Vec::new(),
            processes: vec![ProcessView {
                name: "drover-extractor-salesforce".into(),
                instance: "extractor-0123456789abcdef".into(),
                stage: "extractor",
                pid: 4_194_304,
                http: "127.0.0.1:12345".into(),
                alive: true,
                phase: Phase::Throttled,
                last_error: Some("THROTTLED: ".to_owned() + &"the source limits us ".repeat(9)),
                last_error_at: Some(5_000),
                at: 19_000,
                lanes: [(
                    "Contact".to_owned(),
                    Lane {
                        phase: Phase::Running,
                        error: None,
                        until: None,
                        waits_for: Some("waits for the first copy of Account: ".repeat(3)),
                        seen: None,
                    },
                )]
                .into(),
                edges: [(
                    "t".to_owned(),
                    Edge {
                        records: 5,
                        seconds: Some(7),
                    },
                )]
                .into(),
            }],
        }
    }

    #[test]
    fn it_fits_a_terminal() {
        let text = render(&example());
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        assert!(text.contains("99999999"), "{text}");
        assert!(text.contains("lane Contact (waits):"), "{text}");
        assert!(text.contains("cdef, last error, 15s ago:"), "{text}");
    }

    #[test]
    fn the_json_has_the_names_that_programs_rely_on() {
        let json = serde_json::to_value(example()).expect("serialises");
        for path in [
            "/migration",
            "/phase",
            "/balanced",
            "/balancedAt",
            "/objects/0/object",
            "/objects/0/extracted",
            "/objects/0/loaded",
            "/objects/0/unchanged",
            "/objects/0/stale",
            "/objects/0/parked",
            "/objects/0/dead",
            "/objects/0/lag/records",
            "/objects/0/lag/seconds",
            "/processes/0/name",
            "/processes/0/instance",
            "/processes/0/pid",
            "/processes/0/http",
            "/processes/0/alive",
            "/processes/0/phase",
            "/processes/0/lastError",
        ] {
            assert!(json.pointer(path).is_some(), "{path}");
        }
        assert!(json["balanced"].is_null());
    }
}
