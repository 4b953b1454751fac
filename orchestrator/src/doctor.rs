//! `drover doctor`: what this machine and the cluster lack, each with the
//! command that mends it. It changes nothing, and needs no credentials of
//! source or target; those are `drover check`'s.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use drover_pipeline::control::Plan;
use drover_pipeline::kafka::client::SESSION;
use drover_pipeline::spec::Stage;
use drover_pipeline::topics::{Topic, Topics};
use drover_pipeline::{Code, Error};
use serde::Serialize;

use crate::cli::{Format, blocking, print, print_json};
use crate::connectors::{Connectors, program};
use crate::failure::{Failure, Result};
use crate::migration::Bus;
use crate::table::{WIDTH, counted, wrap};
use crate::topics::{Broker, Found, same_policy, settings};

/// How a finding stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Health {
    /// As it should be.
    Ok,
    /// It works, and will hurt some day.
    Warning,
    /// Drover does not work so.
    Failed,
    /// Could not be looked at.
    Skipped,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    subject: String,
    health: Health,
    detail: String,
    /// The command that mends it, or what to do where no command can.
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

impl Finding {
    fn ok(subject: impl Into<String>, detail: impl Into<String>) -> Self {
        Finding {
            subject: subject.into(),
            health: Health::Ok,
            detail: detail.into(),
            mend: None,
        }
    }

    fn ill(
        subject: impl Into<String>,
        health: Health,
        detail: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Finding {
            subject: subject.into(),
            health,
            detail: detail.into(),
            mend: Some(mend.into()),
        }
    }
}

pub(crate) async fn run(file: Option<&Path>, format: Format) -> Result<ExitCode> {
    let mut findings = machine(
        &std::fs::read_to_string("/proc/self/limits").unwrap_or_default(),
        &std::fs::read_to_string("/proc/meminfo").unwrap_or_default(),
    );
    findings.extend(programs(&Connectors::of_process()).await);
    match file {
        Some(file) => findings.extend(cluster(file).await),
        None => findings.push(Finding {
            subject: "kafka".into(),
            health: Health::Skipped,
            detail: "no configuration is named".into(),
            mend: Some("drover doctor -c FILE".into()),
        }),
    }
    match format {
        Format::Json => print_json(&findings),
        Format::Table => print(&render(&findings)),
    }
    let failed = findings.iter().any(|f| f.health == Health::Failed);
    Ok(ExitCode::from(if failed { 3 } else { 0 }))
}

fn render(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let health = match finding.health {
            Health::Ok => "ok     ",
            Health::Warning => "warning",
            Health::Failed => "FAILED ",
            Health::Skipped => "skipped",
        };
        // The first line hangs out by the word.
        let line = wrap(
            &format!("{}: {}", finding.subject, finding.detail),
            "         ",
        );
        text.push_str(health);
        text.push_str(line.get(health.len()..).unwrap_or_default());
        if let Some(mend) = &finding.mend {
            text.push_str(&copyable(mend));
        }
    }
    let count = |health| findings.iter().filter(|f| f.health == health).count();
    let (failed, warnings) = (count(Health::Failed), count(Health::Warning));
    let warnings = counted(warnings as u64, "warning", "warnings");
    text.push_str(&format!("\n{failed} failed, {warnings}\n"));
    text
}

/// A command over several lines, as a shell takes it.
fn copyable(mend: &str) -> String {
    let whole = format!("         mend: {mend}");
    if whole.chars().count() <= WIDTH {
        return whole + "\n";
    }
    match mend.contains(" --") {
        true => whole.replace(" --", " \\\n           --") + "\n",
        false => wrap(&format!("mend: {mend}"), "         "),
    }
}

/// What the stages need of this machine. `limits` and `memory` are the texts of
/// `/proc/self/limits` and `/proc/meminfo`; empty where there are none.
fn machine(limits: &str, memory: &str) -> Vec<Finding> {
    let files = limits.lines().find_map(|line| {
        let soft = line.strip_prefix("Max open files")?;
        soft.split_whitespace().next()?.parse::<u64>().ok()
    });
    let available = memory.lines().find_map(|line| {
        let kib = line.strip_prefix("MemAvailable:")?;
        kib.split_whitespace().next()?.parse::<u64>().ok()
    });
    let mut findings = Vec::new();
    findings.push(match files {
        None => Finding {
            subject: "open files".into(),
            health: Health::Skipped,
            detail: "this system does not tell".into(),
            mend: None,
        },
        // A client keeps a connection a broker, and a stage has several.
        Some(files) if files < 1024 => Finding::ill(
            "open files",
            Health::Warning,
            format!("{files} are allowed; a cluster of many brokers needs more"),
            "ulimit -n 65536",
        ),
        Some(files) => Finding::ok("open files", format!("{files} are allowed")),
    });
    findings.push(match available.map(|kib| kib / 1024) {
        None => Finding {
            subject: "memory".into(),
            health: Health::Skipped,
            detail: "this system does not tell".into(),
            mend: None,
        },
        Some(mib) if mib < 512 => Finding::ill(
            "memory",
            Health::Warning,
            format!("{mib} MiB are free; a loader keeps its table of all keys in memory"),
            "stop something, or run the loaders on another machine",
        ),
        Some(mib) => Finding::ok("memory", format!("{mib} MiB are free")),
    });
    findings
}

async fn programs(connectors: &Connectors) -> Vec<Finding> {
    let mut findings = Vec::new();
    for stage in [Stage::Extractor, Stage::Transformer, Stage::Loader] {
        let names = connectors.list(stage);
        if names.is_empty() {
            findings.push(Finding::ill(
                program(stage, "*"),
                Health::Failed,
                format!("no {} is installed", stage.as_str()),
                "put its program beside drover or on PATH (from source: `make build`)",
            ));
        }
        for name in names {
            let Some(connector) = connectors.find(stage, &name) else {
                continue;
            };
            let ours = env!("CARGO_PKG_VERSION");
            findings.push(match connector.spec().await {
                Ok(spec) if spec.version == ours => {
                    Finding::ok(connector.program(), format!("version {ours}"))
                }
                Ok(spec) => Finding::ill(
                    connector.program(),
                    Health::Warning,
                    format!("version {}, while drover is {ours}", spec.version),
                    "install both from one release",
                ),
                Err(failure) => Finding::ill(
                    connector.program(),
                    Health::Failed,
                    failure.to_string(),
                    format!("install {} again", connector.path.display()),
                ),
            });
        }
    }
    findings
}

async fn cluster(file: &Path) -> Vec<Finding> {
    let bus = match Bus::load(file) {
        Ok(bus) => bus,
        Err(failures) => {
            let all = failures.0.into_iter().map(|failure| {
                let mend = format!("drover check -c {} shows every place", file.display());
                Finding::ill("configuration", Health::Failed, failure.to_string(), mend)
            });
            return all.collect();
        }
    };
    let store = store(&bus).await;
    let brokers = bus.config.kafka.brokers.clone();
    let mut findings = match asked(&bus, file).await {
        Ok(findings) => findings,
        Err(failures) => failures
            .0
            .into_iter()
            .map(|failure| unanswered(&failure, &brokers))
            .collect(),
    };
    findings.extend(store);
    findings
}

/// What Kafka did not let us look at. What to do is said once.
fn unanswered(failure: &Failure, brokers: &str) -> Finding {
    let told = failure.to_string();
    let advice = failure.code.advice();
    let detail = told.strip_suffix(&format!("; {advice}")).unwrap_or(&told);
    let mend = match failure.code {
        Code::BrokerUnreachable => {
            format!("start the broker, or correct kafka.brokers ({brokers})")
        }
        _ => advice.to_owned(),
    };
    Finding::ill("kafka", Health::Failed, detail, mend)
}

/// Whether the object store can be written and read, where one is configured.
async fn store(bus: &Bus) -> Option<Finding> {
    let told = match bus.bodies().transpose()? {
        Ok(bodies) => bodies.check().await,
        Err(error) => Err(error),
    };
    Some(match told {
        Ok(()) => Finding::ok("object store", "can be written and read"),
        Err(error) => Finding::ill(
            "object store",
            Health::Failed,
            error.to_string(),
            "mount the folder that objectStore.url names, or grant the right to write there",
        ),
    })
}

async fn asked(bus: &Bus, file: &Path) -> Result<Vec<Finding>> {
    let brokers = &bus.config.kafka.brokers;
    let replication = bus.config.kafka.replication;
    let broker = Broker::new(&bus.client)?;
    let ids = broker.ids()?;
    let wanted = usize::try_from(replication.unwrap_or(1)).unwrap_or(1);
    let answer = counted(ids.len() as u64, "broker answers", "brokers answer");
    let mut findings = vec![if ids.len() < wanted {
        Finding::ill(
            "kafka",
            Health::Failed,
            format!("{answer}, kafka.replication is {wanted}"),
            "start the others, or lower kafka.replication",
        )
    } else {
        Finding::ok("kafka", format!("{answer} at {brokers}"))
    }];
    for id in ids {
        findings.extend(broker_settings(id, &broker.settings(id).await?, brokers));
    }
    let (client, topics) = (bus.client.clone(), bus.topics.clone());
    let plan = match blocking(move || Ok::<_, Error>(Plan::read(&client, &topics))).await? {
        Ok(plan) => plan,
        Err(error) if error.code == Code::NotInitialised => {
            let mend = format!("drover init -c {}", file.display());
            let what = "the migration is not initialised";
            findings.push(Finding::ill("topics", Health::Warning, what, mend));
            return Ok(findings);
        }
        Err(error) => return Err(error.into()),
    };
    let objects = plan.objects.iter().map(|o| (o.name.as_str(), o.custom));
    let entities = plan.entities.iter().map(String::as_str);
    let all = bus.topics.all(objects, entities);
    let names = all.iter().map(|topic| topic.name.clone()).collect();
    let found = broker.find(&names).await?;
    findings.extend(topic_settings(
        &all,
        &found,
        &bus.topics,
        replication,
        brokers,
        file,
    ));
    Ok(findings)
}

/// Settings of a broker that Drover leans on.
fn broker_settings(id: i32, settings: &BTreeMap<String, String>, brokers: &str) -> Vec<Finding> {
    const DAY_MINUTES: i64 = 24 * 60;
    let session = i64::try_from(SESSION.as_millis()).unwrap_or(i64::MAX);
    // (setting, at least, how bad, why)
    let rules = [
        (
            "transaction.max.timeout.ms",
            10_000,
            Health::Failed,
            "the stages' transactions may last 10 s",
        ),
        (
            "group.max.session.timeout.ms",
            session,
            Health::Failed,
            "the stages' sessions last that long",
        ),
        (
            "offsets.retention.minutes",
            7 * DAY_MINUTES,
            Health::Warning,
            "a migration that is stopped for longer forgets how far it has read, and reads all again",
        ),
        (
            "transactional.id.expiration.ms",
            7 * DAY_MINUTES * 60_000,
            Health::Warning,
            "a stage that is stopped for longer is no longer fenced",
        ),
    ];
    let mut findings: Vec<Finding> = rules
        .into_iter()
        .filter_map(|(name, least, health, why)| {
            let value: i64 = settings.get(name)?.parse().ok()?;
            (value < least).then(|| {
                Finding::ill(
                    format!("broker {id}"),
                    health,
                    format!("{name} is {value}, less than {least}: {why}"),
                    alter(
                        brokers,
                        "--entity-type brokers --entity-default",
                        name,
                        &least.to_string(),
                    ),
                )
            })
        })
        .collect();
    if findings.is_empty() {
        findings.push(Finding::ok(format!("broker {id}"), "its settings fit"));
    }
    findings
}

fn topic_settings(
    topics: &[Topic],
    found: &BTreeMap<String, Found>,
    of: &Topics,
    replication: Option<i32>,
    brokers: &str,
    file: &Path,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for topic in topics {
        let Some(found) = found.get(&topic.name) else {
            findings.push(Finding::ill(
                &topic.name,
                Health::Failed,
                "the topic is not there",
                format!("drover init -c {}", file.display()),
            ));
            continue;
        };
        if found.partitions != topic.partitions {
            findings.push(Finding::ill(
                &topic.name,
                Health::Failed,
                format!("{} partitions, not {}", found.partitions, topic.partitions),
                "choose another migration id: keys have moved between partitions",
            ));
        }
        for (name, must) in settings(topic, of, replication) {
            let is = found.settings.get(name).map_or("", String::as_str);
            let same = match name {
                "cleanup.policy" => same_policy(is, &must),
                _ => is == must,
            };
            if same {
                continue;
            }
            let health = match name {
                "cleanup.policy" => Health::Failed,
                _ => Health::Warning,
            };
            let entity = format!("--entity-type topics --entity-name {}", topic.name);
            findings.push(Finding::ill(
                &topic.name,
                health,
                format!("{name} is {is}, not {must}"),
                alter(brokers, &entity, name, &must),
            ));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            "topics",
            format!("all {} are as made by init", topics.len()),
        ));
    }
    findings
}

/// Kafka's own tool; a value with commas stands in brackets there.
fn alter(brokers: &str, entity: &str, name: &str, value: &str) -> String {
    let value = match value.contains(',') {
        true => format!("[{value}]"),
        false => value.to_owned(),
    };
    format!(
        "kafka-configs.sh --bootstrap-server {brokers} --alter {entity} --add-config {name}={value}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_lacks_something_is_told_how_to_mend_it() {
        let limits = "Max open files            256                  4096                 files\n";
        let findings = machine(limits, "MemTotal: 9 kB\nMemAvailable:   102400 kB\n");
        let shown: Vec<_> = findings
            .iter()
            .map(|f| (f.health, f.detail.as_str()))
            .collect();
        assert_eq!(
            shown,
            [
                (
                    Health::Warning,
                    "256 are allowed; a cluster of many brokers needs more"
                ),
                (
                    Health::Warning,
                    "100 MiB are free; a loader keeps its table of all keys in memory"
                ),
            ]
        );
        assert_eq!(findings[0].mend.as_deref(), Some("ulimit -n 65536"));
        let fine = machine(
            "Max open files            65536  65536  files\n",
            "MemAvailable:   8388608 kB\n",
        );
        assert!(fine.iter().all(|f| f.health == Health::Ok));
    }

    #[test]
    fn a_brokers_setting_below_what_is_needed_is_found() {
        let settings = |retention: &str| -> BTreeMap<String, String> {
            [
                ("transaction.max.timeout.ms", "900000"),
                ("group.max.session.timeout.ms", "1800000"),
                ("offsets.retention.minutes", retention),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
        };
        let fine = broker_settings(1, &settings("10080"), "b:1");
        assert_eq!(fine, [Finding::ok("broker 1", "its settings fit")]);
        let ill = broker_settings(1, &settings("60"), "b:1");
        assert_eq!(ill.len(), 1);
        assert_eq!(ill[0].health, Health::Warning);
        let mend = "kafka-configs.sh --bootstrap-server b:1 --alter --entity-type brokers \
                    --entity-default --add-config offsets.retention.minutes=10080";
        assert_eq!(ill[0].mend.as_deref(), Some(mend));
    }

    #[test]
    fn the_text_fits_and_commands_can_be_copied() {
        let long = "word ".repeat(60);
        let text = render(&[
            Finding::ok("a", "b"),
            Finding::ill(
                "topic",
                Health::Failed,
                long,
                alter(
                    "b:1",
                    "--entity-type topics --entity-name a.topic",
                    "x",
                    "1,2",
                ),
            ),
            Finding::ill("c", Health::Failed, "d", "do this"),
        ]);
        let mend = "         mend: kafka-configs.sh \\\n           --bootstrap-server b:1 \\\n";
        assert!(text.contains(mend), "{text}");
        assert!(text.contains("           --add-config x=[1,2]\n"), "{text}");
        assert!(
            text.starts_with("ok       a: b\nFAILED   topic: word"),
            "{text}"
        );
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        assert!(
            text.ends_with("         mend: do this\n\n2 failed, 0 warnings\n"),
            "{text}"
        );
    }
}
