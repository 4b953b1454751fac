//! `drover status`: a view of the migration, printed.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use drover_pipeline::control::Plan;
use drover_pipeline::retry::passes;
use drover_pipeline::status::Phase;

use crate::cli::{Format, blocking, print, print_json, tell};
use crate::failure::Result;
use crate::migration::Bus;
use crate::table::{Column, counted, folded, number, seconds, table, wrap};
use crate::view::{ObjectView, ProcessView, Reader, View, read};

/// How often `--watch` looks.
const EVERY: Duration = Duration::from_secs(1);

/// How long a process that has ended is shown.
const ENDED: Duration = Duration::from_secs(600);

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
        let records = counted(*count, "record", "records");
        text.push_str(&wrap(&format!("note: {remark} ({records})"), ""));
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
    let (empty, some): (Vec<&ObjectView>, Vec<_>) = view.objects.iter().partition(|o| is_empty(o));
    let fold = folded(empty.len(), view.objects.len());
    let shown = match fold {
        Some(_) => some,
        None => view.objects.iter().collect(),
    };
    let rows: Vec<Vec<String>> = shown
        .into_iter()
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
    table(&columns, &rows) + &fold.unwrap_or_default()
}

/// Whether the source is known to have no record of the object.
fn is_empty(o: &ObjectView) -> bool {
    let known = o.snapshot_complete || o.expected == Some(0);
    known && [o.extracted, o.loaded, o.parked, o.dead, o.lag.records] == [0; 5]
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
    // What has ended long ago helps nobody to see what runs.
    let is_old = |p: &&ProcessView| {
        !p.alive && u128::try_from(view.at - p.at).is_ok_and(|age| age > ENDED.as_millis())
    };
    let (old, shown): (Vec<&ProcessView>, Vec<_>) = view.processes.iter().partition(is_old);
    let rows: Vec<Vec<String>> = shown
        .iter()
        .map(|process| {
            let ago = u64::try_from((view.at - process.at) / 1000).unwrap_or(0);
            vec![
                process.name.clone(),
                process.instance.clone(),
                process.pid.to_string(),
                if process.alive { "yes" } else { "no" }.to_owned(),
                match (process.alive, process.phase) {
                    (true, phase) => phase.as_str(),
                    (false, Phase::Stopped) => "ended",
                    (false, _) => "silent",
                }
                .to_owned(),
                format!("{} ago", seconds(Some(ago))),
            ]
        })
        .collect();
    let mut text = match shown.is_empty() {
        true => "no process runs; start them by `drover run`\n".to_owned(),
        false => table(&columns, &rows),
    };
    if !old.is_empty() {
        let old = counted(old.len() as u64, "process", "processes");
        text.push_str(&format!(
            "{old} not heard of for 10 minutes; `--format json` has a day's\n"
        ));
    }
    for process in shown.iter().filter(|process| process.alive) {
        for (lane, standing) in &process.lanes {
            let why = standing.waits_for.as_ref().or(standing.error.as_ref());
            let (instance, phase) = (&process.instance, standing.phase.as_str());
            let what = match standing.waits_for {
                Some(_) => "waits",
                None => phase,
            };
            text.push_str(&format!(
                "\n{instance}, lane {lane} ({what}):\n{}",
                wrap(why.map_or("", String::as_str), "  ")
            ));
        }
    }
    for process in shown {
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
    fn what_says_nothing_takes_no_room() {
        let mut view = example();
        let empty = |name: &str, snapshot_complete| ObjectView {
            object: name.to_owned(),
            snapshot_complete,
            ..ObjectView::default()
        };
        view.objects.push(empty("Unread__c", false));
        view.objects.push(empty("Asset", true));
        view.objects.push(empty("Contract", true));
        let text = objects(&view);
        assert!(text.ends_with("and 2 more without records\n"), "{text}");
        assert!(text.contains("Unread__c"), "{text}");
        assert!(
            !text.contains("Asset") && !text.contains("Contract"),
            "{text}"
        );

        let process = |instance: &str, phase, alive, at| ProcessView {
            instance: instance.to_owned(),
            phase,
            alive,
            at,
            ..view.processes[0].clone()
        };
        view.at = 2_000_000;
        view.processes = vec![
            process("loader-1", Phase::Running, true, 1_999_000),
            process("loader-2", Phase::Stopped, false, 1_900_000),
            process("loader-3", Phase::Running, false, 1_900_000),
            process("loader-4", Phase::Stopped, false, 1_000_000),
            process("loader-5", Phase::Running, false, 1_000_000),
        ];
        let text = processes(&view);
        let row = |name: &str| {
            let found = text
                .lines()
                .find(|line| line.contains(name) && line.contains(" ago"));
            found.map(|line| line.split_whitespace().skip(3).take(2).collect::<Vec<_>>())
        };
        assert_eq!(row("loader-1"), Some(vec!["yes", "running"]), "{text}");
        assert_eq!(row("loader-2"), Some(vec!["no", "ended"]), "{text}");
        assert_eq!(row("loader-3"), Some(vec!["no", "silent"]), "{text}");
        assert!(
            !text.contains("loader-4") && !text.contains("loader-5"),
            "{text}"
        );
        assert!(
            text.contains("2 processes not heard of for 10 minutes"),
            "{text}"
        );
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
