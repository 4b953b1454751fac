//! `drover status`: a view of the migration, printed.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use drover_pipeline::control::Plan;
use drover_pipeline::record::Millis;
use drover_pipeline::retry::passes;
use drover_pipeline::spec::Stage;
use drover_pipeline::status::{Lane, Phase};

use crate::cli::{Format, blocking, print, print_json, tell};
use crate::dryrun;
use crate::failure::Result;
use crate::migration::Bus;
use crate::table::{Column, counted, folded, number, seconds, table, wrap};
use crate::view::{ObjectView, ProcessView, Reader, View, read};
use crate::when::age;

mod processes;
mod screen;

use processes::processes;

/// How often `--watch` looks.
const EVERY: Duration = Duration::from_secs(1);

/// Objects of the source that were asked within this of each other, in milliseconds,
/// were asked at once: each takes its moment.
const TOGETHER: Millis = 10_000;

/// Lines of a terminal that are not the view's: an empty one, the clock's, and the
/// cursor's.
const OTHERS: usize = 3;

pub(crate) async fn run(file: &Path, format: Format, watch: bool) -> Result<()> {
    let bus = Bus::load(file)?;
    if watch {
        return follow(bus, format).await;
    }
    // A dry run is there to say what it would write.
    let (view, dry) = blocking(move || {
        let dry = match bus.config.dry_run {
            true => Some(dryrun::count(&bus, &Plan::read(&bus.client, &bus.topics)?)?),
            false => None,
        };
        Ok::<_, drover_pipeline::Error>((read(&bus)?, dry))
    })
    .await?;
    match (format, dry) {
        (Format::Json, None) => print_json(&view),
        (Format::Json, Some(dry)) => print_json(&dry.beside(&view)),
        (Format::Table, None) => print(&render(&view)),
        (Format::Table, Some(dry)) => {
            let report = dry.render(&view);
            print(&format!(
                "{}\nwhat would be written\n{report}",
                render(&view)
            ));
        }
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
                Ok(view) => match (format, in_place) {
                    (Format::Json, _) => line(&view),
                    (Format::Table, false) => render(&view),
                    (Format::Table, true) => {
                        let (height, _) = console::Term::stdout().size();
                        let height = usize::from(height).saturating_sub(OTHERS);
                        render_within(&view, height)
                    }
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
    sections(view).concat()
}

/// The view in so many lines: of the objects first what is not just done.
fn render_within(view: &View, height: usize) -> String {
    let whole = sections(view);
    if whole.iter().map(|text| text.lines().count()).sum::<usize>() <= height {
        return whole.concat();
    }
    let mut view = view.clone();
    view.objects.sort_by_key(|o| {
        let troubled = o.dead > o.waived || o.parked > 0;
        let moving = !o.snapshot_complete || o.lag.records > 0;
        (!troubled, !moving, std::cmp::Reverse(o.extracted))
    });
    screen::fit(&sections(&view), WRONG, height)
}

/// Which of the sections tells what is wrong.
const WRONG: usize = 4;

/// The view in sections; what stands beside all of it is the last.
fn sections(view: &View) -> Vec<String> {
    let (migration, source, phase) = (&view.migration, &view.source, view.phase);
    let way = match view.dry_run {
        true => format!("{source}, dry run: no target"),
        false => format!("{source} to {}", view.target),
    };
    let generation = view.generation;
    let head = format!("{migration}: {way}, {phase}, mapping generation {generation}");
    let (table, wrong) = processes(view);
    let quotas = view.quotas.iter();
    let quotas = quotas.map(|quota| format!("\n{}", wrap(&quota.text(), "")));
    let remarks = view.remarks.iter().map(|(remark, count)| {
        let records = counted(*count, "record", "records");
        wrap(&format!("note: {remark} ({records})"), "")
    });
    vec![
        wrap(&head, "") + "\n",
        objects(view),
        notes(view) + &balance(view),
        format!("\n{table}"),
        wrong,
        quotas.chain(remarks).collect(),
    ]
}

/// What the figures mean, where they could be taken for something else.
fn notes(view: &View) -> String {
    let sum = |count: fn(&ObjectView) -> u64| view.objects.iter().map(count).sum::<u64>();
    let mut text = String::new();
    let waived = sum(|object| object.waived);
    if waived > 0 {
        let line = format!("{waived} of the dead are waived; see `drover deadletter list`");
        text.push_str(&wrap(&line, ""));
    }
    let older = sum(|object| object.dead_but_loaded);
    if older > 0 {
        let line = format!(
            "{older} of the dead are in the target in an older version, and count as LOADED, too"
        );
        text.push_str(&wrap(&line, ""));
    }
    if sum(|object| object.stale) > 0 {
        let line = "stale: a version older than what is known, left out; nothing is missing";
        text.push_str(&wrap(line, ""));
    }
    text + &source(view)
}

/// Up to when the source was asked, and since when it has nothing new: what nobody
/// edits is not behind. What was asked longest ago is named, unless all were asked
/// about then.
fn source(view: &View) -> String {
    let asked = view
        .objects
        .iter()
        .filter_map(|o| Some((o.asked_at?, o.object.as_str())));
    let Some((asked, longest)) = asked.clone().min() else {
        return String::new();
    };
    let ago = |at| seconds(Some(age(at, view.at)));
    let later = view.objects.iter().filter_map(|object| object.asked_at);
    let (all, later) = later.fold((0, 0), |(all, later), at| {
        (all + 1, later + u64::from(at - asked >= TOGETHER))
    });
    let which = match later {
        0 => String::new(),
        _ => format!(
            " for {} ({later} later)",
            with_others(longest, all - later - 1)
        ),
    };
    let changed = view.objects.iter().filter_map(|object| object.changed_at);
    let changed = match changed.max() {
        Some(at) => format!("no change since {} ago", ago(at)),
        None => "no change known".to_owned(),
    };
    let line = format!(
        "source last asked {} ago{which}, {changed}{}",
        ago(asked),
        unread(view)
    );
    wrap(&line, "")
}

/// What of the source nobody reads now.
fn unread(view: &View) -> String {
    let is_one = |p: &&ProcessView| p.alive && p.stage == Stage::Extractor.as_str();
    let alive: Vec<&ProcessView> = view.processes.iter().filter(is_one).collect();
    if alive.is_empty() {
        return "; no extractor runs, so what came later is not known".to_owned();
    }
    let blocked = |object: &&ObjectView| {
        let mut lanes = alive
            .iter()
            .filter_map(|process| process.lanes.get(&object.object));
        lanes.any(|lane| lane.phase == Phase::Blocked)
    };
    let blocked: Vec<&ObjectView> = view.objects.iter().filter(blocked).collect();
    match blocked.as_slice() {
        [] => String::new(),
        all if all.len() == view.objects.len() => "; it is not read now, see below".to_owned(),
        // The one whose changes have been unknown for longest.
        [first, others @ ..] => {
            let longest =
                others
                    .iter()
                    .fold(first, |one, other| match other.asked_at < one.asked_at {
                        true => other,
                        false => one,
                    });
            let is = if others.is_empty() { "is" } else { "are" };
            let who = with_others(&longest.object, others.len() as u64);
            format!("; {who} {is} not read now, see below")
        }
    }
}

/// `Contact`, `Contact and 2 others`.
fn with_others(name: &str, others: u64) -> String {
    match others {
        0 => name.to_owned(),
        _ => format!("{name} and {}", counted(others, "other", "others")),
    }
}

/// What the last balance came to.
fn balance(view: &View) -> String {
    let ago = view.balanced_at.map(|at| seconds(Some(age(at, view.at))));
    // A remap maps everything anew: what was proved before says nothing of it.
    let earlier = view
        .balanced_generation
        .is_some_and(|of| of != view.generation);
    match (view.balanced, ago) {
        (Some(true), Some(ago)) if earlier => format!(
            "\nbalanced {ago} ago, before the mapping of now: `drover balance` proves it anew\n"
        ),
        (Some(true), Some(ago)) => format!("\nbalanced {ago} ago\n"),
        (Some(false), Some(ago)) => {
            format!("\nNOT BALANCED {ago} ago: `drover balance` names the records\n")
        }
        _ => "\nnot yet balanced: `drover balance` proves it\n".to_owned(),
    }
}

/// The table of objects alone. Of a dry run it says what was mapped: nothing is
/// loaded, and a 0 would look as if that had failed.
pub(crate) fn objects(view: &View) -> String {
    let columns: &[&'static str] = match view.dry_run {
        true => &["EXTRACTED", "MAPPED", "DEAD", "LAG", "BEHIND"],
        false => &[
            "EXTRACTED",
            "LOADED",
            "UNCHANGED",
            "STALE",
            "PARKED",
            "DEAD",
            "LAG",
            "BEHIND",
        ],
    };
    let mut titles = vec![Column::Text("OBJECT")];
    titles.extend(columns.iter().map(|title| Column::Number(title)));
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
            let (dead, lag) = (o.dead, o.lag.records);
            let counts = match view.dry_run {
                true => vec![o.extracted, o.mapped, dead, lag],
                false => vec![
                    o.extracted,
                    o.loaded,
                    o.unchanged,
                    o.stale,
                    o.parked,
                    dead,
                    lag,
                ],
            };
            row.extend(counts.into_iter().map(number));
            row.push(seconds(behind(view, o)));
            row
        })
        .collect();
    table(&titles, &rows) + &fold.unwrap_or_default()
}

/// How long the oldest that waits has waited. How long ago the source was asked
/// counts only while somebody asks it: nobody knows whether anything came since.
fn behind(view: &View, o: &ObjectView) -> Option<u64> {
    let reads = |process: &ProcessView| {
        let blocked = |lane: &Lane| lane.phase == Phase::Blocked;
        process.alive
            && process.stage == Stage::Extractor.as_str()
            && !matches!(process.phase, Phase::Starting | Phase::Standby)
            && !process.lanes.get(&o.object).is_some_and(blocked)
    };
    if view.processes.iter().any(reads) {
        return o.lag.seconds;
    }
    let hops = [o.lag.transform, o.lag.load].into_iter();
    let waiting = hops.filter(|hop| hop.records.is_some_and(|records| records > 0));
    waiting.filter_map(|hop| hop.seconds).max()
}

/// Whether the source is known to have no record of the object.
fn is_empty(o: &ObjectView) -> bool {
    let known = o.snapshot_complete || o.expected == Some(0);
    known && [o.extracted, o.loaded, o.parked, o.dead, o.lag.records] == [0; 5]
}

#[cfg(test)]
pub(crate) mod tests {
    use drover_pipeline::status::Edge;

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
            balanced_generation: None,
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
                last_error_over: false,
                until: None,
                failed: false,
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
    fn a_watched_view_fits_a_small_terminal() {
        let mut view = example();
        let object = |n: u64| ObjectView {
            object: format!("Object_{n}__c"),
            extracted: n + 1,
            loaded: n + 1,
            snapshot_complete: true,
            dead: u64::from(n == 7),
            ..ObjectView::default()
        };
        view.objects = (0..40).map(object).collect();
        view.migration = "mig-".to_owned() + &"long".repeat(15);
        let text = render_within(&view, 21);
        assert!(text.lines().count() <= 21, "{text}");
        let long = text.lines().find(|line| line.chars().count() > 80);
        assert_eq!(long, None, "{text}");
        let object = text.lines().find(|line| line.starts_with("Object_"));
        assert!(
            object.is_some_and(|line| line.starts_with("Object_7__c")),
            "{text}"
        );
        assert!(
            text.contains(" more lines; see `drover status`\n"),
            "{text}"
        );
        assert!(text.contains("drover-extractor-sale"), "{text}");
        assert_eq!(render_within(&view, 500), render(&view));
    }

    #[test]
    fn data_that_nobody_edits_does_not_look_wrong() {
        let mut view = example();
        let contact = &mut view.objects[1];
        contact.stale = 3;
        contact.asked_at = Some(18_000);
        contact.changed_at = Some(-840_000);
        let text = render(&view);
        assert!(
            text.contains("source last asked 2s ago, no change since 14m ago\n"),
            "{text}"
        );
        assert!(text.contains("left out; nothing is missing\n"), "{text}");
        assert!(!text.contains("older version, and"), "{text}");
        view.objects[0].dead_but_loaded = 2;
        let told =
            "2 of the dead are in the target in an older version, and count as LOADED, too\n";
        assert!(render(&view).contains(told), "{}", render(&view));
        view.processes[0].alive = false;
        let text = render(&view).replace('\n', " ");
        assert!(
            text.contains("since 14m ago; no extractor runs, so what came later is not known"),
            "{text}"
        );
    }

    #[test]
    fn what_of_the_source_is_behind_is_named() {
        let mut view = example();
        let object = |name: &str, asked_at| ObjectView {
            object: name.to_owned(),
            asked_at: Some(asked_at),
            changed_at: Some(16_000),
            ..ObjectView::default()
        };
        view.at = 120_000;
        view.objects = vec![
            object("Account", 119_000),
            object("Contact", 56_000),
            object("Lead", 118_000),
        ];
        let line = |view: &View| source(view).replace('\n', " ");
        assert_eq!(
            line(&view),
            "source last asked 64s ago for Contact (2 later), no change since 104s ago "
        );
        view.objects.push(object("Case", 60_000));
        assert!(line(&view).contains(" 64s ago for Contact and 1 other (2 later), no"));
        let refused = Lane {
            phase: Phase::Blocked,
            error: Some("FORBIDDEN: no".to_owned()),
            until: None,
            waits_for: None,
            seen: None,
        };
        let block = |view: &mut View, name: &str| {
            let lanes = &mut view.processes[0].lanes;
            lanes.insert(name.to_owned(), refused.clone());
        };
        block(&mut view, "Contact");
        assert!(line(&view).ends_with("; Contact is not read now, see below "));
        block(&mut view, "Account");
        assert!(line(&view).ends_with("; Contact and 1 other are not read now, see below "));
        block(&mut view, "Lead");
        block(&mut view, "Case");
        assert!(line(&view).ends_with("; it is not read now, see below "));
    }

    #[test]
    fn a_source_that_nobody_reads_puts_nothing_behind() {
        let mut view = example();
        view.objects[0].lag.extract.seconds = Some(960);
        view.objects[0].lag.seconds = Some(960);
        view.objects[0].lag.load.seconds = Some(12);
        let row = |view: &View, behind: &str| {
            let text = objects(view);
            let ends = text.lines().any(|line| line.ends_with(behind));
            assert!(ends, "no {behind}: {text}");
        };
        row(&view, " 16m");
        // The login is refused: what waits here is what is behind.
        view.processes[0].alive = false;
        row(&view, " 12s");
        view.objects[0].lag.load.records = Some(0);
        row(&view, " -");
    }

    #[test]
    fn a_dry_run_says_that_it_has_no_target() {
        let mut view = example();
        view.dry_run = true;
        view.objects[0].mapped = 12;
        let text = render(&view);
        assert!(
            text.starts_with("mig-tenant-123: salesforce, dry run: no target, loading, "),
            "{text}"
        );
        assert!(
            !text.contains("LOADED") && !text.contains("nowhere"),
            "{text}"
        );
        assert!(text.contains("MAPPED"), "{text}");
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
        let (text, _) = processes(&view);
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

    #[test]
    fn what_was_proved_before_a_remap_is_said_to_be_of_before() {
        let proved = |generation: Option<u32>| {
            balance(&View {
                balanced: Some(true),
                balanced_at: Some(14_000),
                balanced_generation: generation,
                generation: 2,
                ..example()
            })
        };
        assert_eq!(proved(Some(2)), "\nbalanced 6s ago\n");
        assert_eq!(proved(None), "\nbalanced 6s ago\n");
        let told = proved(Some(1));
        assert!(told.contains("before the mapping of now"), "{told}");
    }
}
