//! `drover metrics`: what concerns the migration as a whole, for Prometheus.
//! The names stand in `drover_pipeline::metrics`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use drover_pipeline::control::Plan;
use drover_pipeline::kafka::Place;
use drover_pipeline::metrics::{self as names, Page};
use drover_pipeline::record::Millis;
use drover_pipeline::spec::Stage;
use drover_pipeline::status::Phase;
use drover_pipeline::topics::Topics;
use drover_pipeline::{Code, Error};

use crate::cli::{Format, blocking, print, print_json, tell};
use crate::failure::{Failure, Result};
use crate::migration::Bus;
use crate::offsets::Lag;
use crate::view::{Lags, Model, ProcessView, Reader, View, Watch};

/// Prints the page once, or serves it at that address until Ctrl-C.
pub(crate) async fn run(file: &Path, format: Format, http: Option<SocketAddr>) -> Result<()> {
    let bus = Bus::load(file)?;
    let Some(http) = http else {
        let page = blocking(move || {
            let plan = Plan::read(&bus.client, &bus.topics)?;
            let reader = Reader::open(&bus, plan)?;
            let model = reader.model()?;
            Exporter { bus, reader }.page(&model)
        });
        let page = page.await?;
        match format {
            Format::Json => print_json(&page.to_json()),
            Format::Table => print(&page.render()),
        }
        return Ok(());
    };
    if format == Format::Json {
        let what = "--format json is for a page that is printed; Prometheus reads its own text";
        return Err(
            Failure::new(Code::ConfigInvalid, what, "leave out --http, or --format").into(),
        );
    }
    let (exporter, watch) = blocking(move || -> drover_pipeline::Result<_> {
        let plan = Plan::read(&bus.client, &bus.topics)?;
        let reader = Reader::open(&bus, plan)?;
        let watch = reader.watch()?;
        Ok((Exporter { bus, reader }, watch))
    })
    .await?;
    let listener = tokio::net::TcpListener::bind(http).await.map_err(|error| {
        let what = format!("--http {http}: {error}");
        Failure::new(Code::ConfigInvalid, what, "choose a free address")
    })?;
    let at = listener.local_addr().unwrap_or(http);
    tell(format_args!("http://{at}/metrics; Ctrl-C ends"));
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/metrics", get(scrape))
        .with_state(Arc::new((exporter, watch)));
    axum::serve(listener, router)
        .with_graceful_shutdown(async {
            let _ = tokio::signal::ctrl_c().await;
        })
        .await
        .map_err(|error| Error::new(Code::Invariant, format!("serving: {error}")).into())
}

async fn scrape(State(state): State<Arc<(Exporter, Watch)>>) -> (StatusCode, String) {
    let page = tokio::task::spawn_blocking(move || {
        let (exporter, watch) = &*state;
        if let Some(error) = watch.trouble() {
            return Err(error);
        }
        watch.look(|model| exporter.page(model).map(|page| page.render()))
    });
    match page.await {
        Ok(Ok(text)) => (StatusCode::OK, text),
        // Prometheus shows the target as down: better than figures that stand.
        Ok(Err(error)) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

struct Exporter {
    bus: Bus,
    reader: Reader,
}

impl Exporter {
    fn page(&self, model: &Model) -> drover_pipeline::Result<Page> {
        let lags = self.reader.lags()?;
        let view = self.reader.view_with(model, &lags);
        let held = held(model, &view);
        page(&view, &lags, &self.bus.topics, &held)
            .map_err(|e| Error::new(Code::Invariant, format!("metrics: {e}")))
    }
}

/// The lanes, by stage, that wait for something that more replicas would not
/// bring: a quota, an operator, another lane.
fn held(model: &Model, view: &View) -> BTreeSet<(Stage, String)> {
    let alive = |instance: &str| {
        let process = view.processes.iter().find(|p| p.instance == instance);
        process.is_some_and(|process| process.alive)
    };
    let reports = model.reports().filter(|report| alive(&report.instance));
    reports
        .flat_map(|report| {
            let waits = report.lanes.iter().filter(|(_, lane)| {
                !matches!(
                    lane.phase,
                    Phase::Starting | Phase::Running | Phase::Degraded
                )
            });
            waits.map(|(name, _)| (report.stage, name.clone()))
        })
        .collect()
}

fn page(
    view: &View,
    lags: &Lags,
    topics: &Topics,
    held: &BTreeSet<(Stage, String)>,
) -> prometheus::Result<Page> {
    let mut page = Page::new(&view.migration)?;
    let flag = |value: bool| f64::from(u8::from(value));
    page.set(&names::PHASE, &[view.phase], 1.0)?;
    if let Some(balanced) = view.balanced {
        page.set(&names::BALANCED, &[], flag(balanced))?;
    }
    if let Some(at) = view.balanced_at {
        page.set(&names::BALANCED_AT, &[], at as f64 / 1000.0)?;
    }
    for object in &view.objects {
        let name = object.object.as_str();
        let states = [
            ("expected", object.expected),
            ("extracted", Some(object.extracted)),
            ("loaded", Some(object.loaded)),
            ("absent", Some(object.absent)),
            ("parked", Some(object.parked)),
            ("dead", Some(object.dead.saturating_sub(object.waived))),
            ("waived", Some(object.waived)),
        ];
        for (state, count) in states {
            if let Some(count) = count {
                page.set(&names::OBJECT_RECORDS, &[name, state], count as f64)?;
            }
        }
        page.set(&names::SNAPSHOT, &[name], flag(object.snapshot_complete))?;
        if let Some(seconds) = object.lag.seconds {
            page.set(&names::FRESHNESS, &[name], seconds as f64)?;
        }
        let hops = [
            ("extract", object.lag.extract),
            ("transform", object.lag.transform),
            ("load", object.lag.load),
        ];
        for (hop, lag) in hops {
            if let Some(records) = lag.records {
                page.set(&names::HOP_RECORDS, &[name, hop], records as f64)?;
            }
            if let Some(seconds) = lag.seconds {
                page.set(&names::HOP_SECONDS, &[name, hop], seconds as f64)?;
            }
        }
    }
    for process in &view.processes {
        let labels = [process.stage, &process.name, &process.instance];
        let ended = !process.alive && process.phase == Phase::Stopped;
        page.set(&names::FAILED, &labels, flag(ended && process.failed))?;
        // Who was told to end, as by a scale-down, is not missed.
        if !ended || process.failed {
            page.set(&names::ALIVE, &labels, flag(process.alive))?;
        }
    }
    for stage in [Stage::Extractor, Stage::Transformer, Stage::Loader] {
        let is_one = |p: &&ProcessView| p.alive && p.stage == stage.as_str();
        let number = view.processes.iter().filter(is_one).count();
        if stage != Stage::Loader || !view.dry_run {
            page.set(&names::STAGE_PROCESSES, &[stage.as_str()], number as f64)?;
        }
    }
    let objects = view.objects.iter().map(|object| object.object.as_str());
    // Custom objects share a topic and a lane.
    let raw: BTreeMap<String, &str> = objects
        .flat_map(|object| {
            [
                (topics.raw(object, false), object),
                (topics.raw(object, true), "custom"),
            ]
        })
        .collect();
    let raw_held = |topic: &str| {
        let lane = raw.get(topic);
        lane.is_some_and(|lane| held.contains(&(Stage::Transformer, (*lane).to_owned())))
    };
    let canonical_held = |topic: &str| {
        let entity = topics.entity_of(topic);
        entity.is_some_and(|entity| held.contains(&(Stage::Loader, entity.to_owned())))
    };
    group(
        &mut page,
        &topics.transform_group(),
        &lags.transform,
        view.at,
    )?;
    scalable(&mut page, Stage::Transformer, &lags.transform, raw_held)?;
    if !view.dry_run {
        group(&mut page, &topics.load_group(), &lags.load, view.at)?;
        scalable(&mut page, Stage::Loader, &lags.load, canonical_held)?;
    }
    Ok(page)
}

fn group(
    page: &mut Page,
    group: &str,
    lags: &BTreeMap<Place, Lag>,
    now: Millis,
) -> prometheus::Result<()> {
    let mut topics: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut most, mut longest, mut sum) = (0, 0.0_f64, 0);
    for (place, lag) in lags {
        let partition = place.partition.to_string();
        let labels = [group, place.topic.as_str(), &partition];
        let age = |then: Millis| (now - then).max(0) as f64 / 1000.0;
        // Unknown (nobody could read the oldest in time) is left out, not zero.
        let seconds = match lag.records {
            0 => Some(0.0),
            _ => lag.oldest.map(age),
        };
        page.set(&names::GROUP_LAG, &labels, lag.records as f64)?;
        if let Some(seconds) = seconds {
            page.set(&names::GROUP_LAG_SECONDS, &labels, seconds)?;
            longest = longest.max(seconds);
        }
        most = most.max(lag.records);
        sum += lag.records;
        *topics.entry(&place.topic).or_default() += lag.records;
    }
    for (topic, records) in topics {
        page.set(&names::GROUP_TOPIC_SUM_LAG, &[group, topic], records as f64)?;
    }
    page.set(&names::GROUP_MAX_LAG, &[group], most as f64)?;
    page.set(&names::GROUP_MAX_LAG_SECONDS, &[group], longest)?;
    page.set(&names::GROUP_SUM_LAG, &[group], sum as f64)
}

fn scalable(
    page: &mut Page,
    stage: Stage,
    lags: &BTreeMap<Place, Lag>,
    held: impl Fn(&str) -> bool,
) -> prometheus::Result<()> {
    let free = lags.iter().filter(|(place, _)| !held(&place.topic));
    let records: u64 = free.map(|(_, lag)| lag.records).sum();
    page.set(&names::SCALABLE, &[stage.as_str()], records as f64)
}

#[cfg(test)]
mod tests {
    use drover_pipeline::config::MigrationConfig;

    use super::*;
    use crate::view::{HopView, LagView, ObjectView};

    fn topics() -> Topics {
        let document = serde_json::json!({
            "id": "m", "tenantId": "t", "sourceType": "salesforce",
            "sourceConfig": {}, "kafka": {"brokers": "127.0.0.1:9"},
        });
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), document.to_string()).expect("written");
        let part = || drover_pipeline::config::Part::Skip;
        Topics::of(&MigrationConfig::load_for(file.path(), part(), part()).expect("valid"))
    }

    fn view() -> View {
        let hop = HopView {
            records: Some(3),
            seconds: Some(7),
        };
        View {
            migration: "m".into(),
            phase: "syncing",
            balanced: Some(true),
            balanced_at: Some(9_500),
            balanced_generation: None,
            source: "salesforce".into(),
            target: "postgres".into(),
            dry_run: false,
            generation: 1,
            at: 10_000,
            objects: vec![ObjectView {
                object: "Contact".into(),
                expected: Some(9),
                parked: 2,
                lag: LagView {
                    records: 3,
                    seconds: Some(7),
                    extract: hop,
                    transform: hop,
                    load: hop,
                },
                ..ObjectView::default()
            }],
            remarks: [].into(),
            quotas: Vec::new(),
            processes: vec![ProcessView {
                name: "drover-loader-postgres".into(),
                instance: "loader-1".into(),
                stage: "loader",
                pid: 1,
                http: "127.0.0.1:1".into(),
                alive: true,
                phase: Phase::Throttled,
                last_error: None,
                last_error_at: None,
                last_error_over: false,
                until: None,
                failed: false,
                at: 9_000,
                lanes: [].into(),
                edges: [].into(),
            }],
        }
    }

    fn lags(topics: &Topics) -> Lags {
        let lag = |records, oldest| Lag { records, oldest };
        let of = |topic: String, first, second| {
            [
                (Place::new(&*topic, 0), first),
                (Place::new(topic, 1), second),
            ]
            .into()
        };
        Lags {
            transform: of(topics.raw("Contact", false), lag(0, None), lag(4, None)),
            load: of(
                topics.canonical("contact"),
                lag(5, Some(8_500)),
                lag(1, Some(9_000)),
            ),
        }
    }

    #[test]
    fn a_dashboard_finds_the_lag_under_the_names_it_knows() {
        let topics = topics();
        let page = page(&view(), &lags(&topics), &topics, &BTreeSet::new()).expect("a page");
        let text = page.render();
        for line in [
            r#"kafka_consumergroup_group_lag{group="drover.m.load.postgres",partition="0",topic="drover.m.canonical.contact",migration="m"} 5"#,
            r#"kafka_consumergroup_group_lag_seconds{group="drover.m.load.postgres",partition="0",topic="drover.m.canonical.contact",migration="m"} 1.5"#,
            r#"kafka_consumergroup_group_sum_lag{group="drover.m.load.postgres",migration="m"} 6"#,
            r#"kafka_consumergroup_group_max_lag{group="drover.m.transform",migration="m"} 4"#,
            r#"drover_object_records{object="Contact",state="parked",migration="m"} 2"#,
            r#"drover_freshness_seconds{object="Contact",migration="m"} 7"#,
            r#"drover_balanced{migration="m"} 1"#,
            r#"drover_balanced_timestamp_seconds{migration="m"} 9.5"#,
            r#"drover_scalable_lag_records{stage="loader",migration="m"} 6"#,
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        let json = page.to_json();
        let family = json.as_array().expect("a list").iter();
        let mut named = family.filter(|family| family["name"] == "drover_object_records");
        let values = named.next().expect("the family")["values"].clone();
        let parked = serde_json::json!({
            "labels": {"object": "Contact", "state": "parked", "migration": "m"}, "value": 2.0,
        });
        assert!(
            values.as_array().expect("a list").contains(&parked),
            "{values}"
        );
        // Nobody could read the oldest record's time: that is not zero seconds.
        let unknown = r#"lag_seconds{group="drover.m.transform",partition="1""#;
        assert!(!text.contains(unknown), "{text}");
    }

    #[test]
    fn a_lane_that_a_quota_holds_asks_for_no_replicas() {
        let topics = topics();
        let held = [(Stage::Loader, "contact".to_owned())].into();
        let page = page(&view(), &lags(&topics), &topics, &held).expect("a page");
        let text = page.render();
        let line = r#"drover_scalable_lag_records{stage="loader",migration="m"} 0"#;
        assert!(text.contains(line), "{text}");
        let line = r#"drover_scalable_lag_records{stage="transformer",migration="m"} 4"#;
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn only_who_was_not_told_to_end_is_missed() {
        let topics = topics();
        let of = |phase, alive, failed| {
            let mut view = view();
            let process = &mut view.processes[0];
            (process.phase, process.alive, process.failed) = (phase, alive, failed);
            let page = page(&view, &lags(&topics), &topics, &BTreeSet::new());
            page.expect("a page").render()
        };
        let labels = r#"{instance="loader-1",process="drover-loader-postgres",stage="loader",migration="m"}"#;
        let alive = |value: u8| format!("drover_process_alive{labels} {value}\n");
        let failed = |value: u8| format!("drover_process_failed{labels} {value}\n");
        let number = |value: u8| {
            format!("drover_stage_processes{{stage=\"loader\",migration=\"m\"}} {value}\n")
        };
        let text = of(Phase::Running, true, false);
        for line in [alive(1), failed(0), number(1)] {
            assert!(text.contains(&line), "{line}{text}");
        }
        // SIGKILL: nobody has heard of it since.
        let text = of(Phase::Running, false, false);
        for line in [alive(0), failed(0), number(0)] {
            assert!(text.contains(&line), "{line}{text}");
        }
        // SIGTERM: scaled down.
        let text = of(Phase::Stopped, false, false);
        assert!(!text.contains("drover_process_alive{"), "{text}");
        assert!(text.contains(&number(0)), "{text}");
        // It has ended by an error.
        let text = of(Phase::Stopped, false, true);
        for line in [alive(0), failed(1)] {
            assert!(text.contains(&line), "{line}{text}");
        }
    }

    #[test]
    fn a_balance_that_does_not_hold_sets_off_its_alert() {
        let topics = topics();
        let of = |balanced| {
            let view = View {
                balanced,
                balanced_at: balanced.map(|_| 9_500),
                ..view()
            };
            let page = page(&view, &lags(&topics), &topics, &BTreeSet::new());
            page.expect("a page").render()
        };
        // What the rule DroverUnbalanced asks for.
        assert!(of(Some(false)).contains("drover_balanced{migration=\"m\"} 0"));
        // None was taken: nothing is claimed.
        assert!(!of(None).contains("drover_balanced"));
    }

    #[test]
    fn every_metric_of_the_migration_is_served() {
        let topics = topics();
        let page = page(&view(), &lags(&topics), &topics, &BTreeSet::new()).expect("a page");
        let text = page.render();
        for family in names::ALL
            .iter()
            .filter(|f| f.server == names::Server::Migration)
        {
            let line = format!("# TYPE {} gauge", family.name);
            assert!(text.contains(&line), "{}", family.name);
        }
    }
}
