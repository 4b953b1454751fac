//! Client settings, all in one place, each with its reason.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;

use super::explain;
pub use super::heard::{Heard, Quiet};
use super::outage::Outage;
use crate::config::{DEFAULT_BROKERS, KafkaConfig};
use crate::error::{Code, Error, Result};

/// How long one question to the broker may take before it counts as unreachable.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// After this long without a heartbeat a group's member counts as dead.
pub const SESSION: Duration = Duration::from_secs(8);

/// Makes the settings of every Kafka client of a process.
#[derive(Clone)]
pub struct Client {
    base: ClientConfig,
    brokers: String,
    heard: Heard,
    outage: Arc<Outage>,
    /// One client for questions about partitions: making one takes longer than
    /// all the questions of a rebalance.
    questions: Arc<Mutex<Option<Arc<BaseConsumer<Quiet>>>>>,
}

impl Client {
    /// Clients of that bus; `name` is what the broker's logs and quotas show.
    pub fn new(config: &KafkaConfig, name: &str) -> Self {
        let mut base = ClientConfig::new();
        base.set("bootstrap.servers", &config.brokers)
            .set("client.id", name)
            // Why a connection failed stands only in the log, which a command
            // without a log of its own hears too.
            .set_log_level(RDKafkaLogLevel::Info)
            // A broker that restarts is found again quickly.
            .set("reconnect.backoff.ms", "100")
            .set("reconnect.backoff.max.ms", "2000");
        for (key, value) in &config.client {
            base.set(key, value);
        }
        Client {
            base,
            brokers: config.brokers.clone(),
            heard: Heard::default(),
            outage: Arc::default(),
            questions: Arc::default(),
        }
    }

    /// The context for a client of this bus.
    pub fn context(&self) -> Quiet {
        Quiet(self.heard.clone())
    }

    /// What the readers of this bus meet, told as one.
    pub fn outage(&self) -> &Outage {
        &self.outage
    }

    /// Kafka's error in Drover's terms, as [`explain`]; where no broker answers
    /// it names the brokers and why the connection failed.
    pub fn explain(&self, doing: &str, error: &KafkaError) -> Error {
        let mut explained = explain(doing, error);
        if explained.code == Code::BrokerUnreachable {
            // librdkafka's own words only say again that it is so.
            doing.clone_into(&mut explained.message);
            explained.source_code = None;
        }
        self.named(explained)
    }

    /// Names the brokers in an error that says that they can't be reached.
    pub fn named(&self, mut error: Error) -> Error {
        if error.code != Code::BrokerUnreachable {
            return error;
        }
        error.message = format!(
            "{}: Kafka at {} does not answer",
            error.message, self.brokers
        );
        if self.brokers == DEFAULT_BROKERS {
            error.message += ", where it is looked for if neither `kafka.brokers` nor \
                              KAFKA_BROKERS is set";
        }
        // A client's log comes by its queue, and nobody else polls this one.
        if let Ok(client) = self.questions() {
            (0..100)
                .take_while(|_| client.poll(Duration::ZERO).is_some())
                .for_each(drop);
        }
        if let Some(reason) = self.heard.reason() {
            error.message = match no_broker(&reason) {
                Some(place) => format!(
                    "{}; {place} answers, but not as a Kafka broker: another service's port, \
                     or another security.protocol",
                    error.message
                ),
                None => format!("{} ({})", error.message, brief(&reason)),
            };
            if reason.to_ascii_lowercase().contains("authentication") {
                // No broker will take it, however often it is tried.
                error.code = Code::KafkaRefused;
            }
        }
        error
    }

    /// Whether a broker answers within that time.
    pub fn reach(&self, limit: Duration) -> Result<()> {
        self.questions()?
            .fetch_metadata(Some("__consumer_offsets"), limit)
            .map(drop)
            .map_err(|e| self.explain("asking for the brokers", &e))
    }

    /// A client for questions about partitions. It reads uncommitted: a
    /// `read_committed` one would be told the last stable offset for the end.
    pub fn questions(&self) -> Result<Arc<BaseConsumer<Quiet>>> {
        let mut shared = self
            .questions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = &*shared {
            return Ok(Arc::clone(client));
        }
        let client = Arc::new(self.open_reader("read_uncommitted")?);
        *shared = Some(Arc::clone(&client));
        Ok(client)
    }

    /// Opens a reader without a group.
    pub fn open_reader(&self, isolation: &str) -> Result<BaseConsumer<Quiet>> {
        self.reader(isolation)
            .create_with_context(self.context())
            .map_err(|e| explain("making a client", &e))
    }

    /// Opens a reader of committed records for what ends soon: the end of a
    /// partition is told by an empty answer, for which a broker otherwise waits
    /// half a second.
    pub fn open_scanner(&self) -> Result<BaseConsumer<Quiet>> {
        self.reader("read_committed")
            .set("fetch.wait.max.ms", "20")
            .create_with_context(self.context())
            .map_err(|e| explain("making a client", &e))
    }

    /// A member of a consumer group. `instance` makes its membership static: a
    /// restart under the same name goes on at once, without a rebalance.
    pub fn member(&self, group: &str, instance: &str) -> ClientConfig {
        let mut config = self.reader("read_committed");
        config
            .set("group.id", group)
            .set("group.instance.id", instance)
            // Range assignment with equal partition counts keeps equal
            // partition numbers of all topics together on one member.
            .set("partition.assignment.strategy", "range")
            // Death without static takeover is noticed after this long.
            .set("session.timeout.ms", SESSION.as_millis().to_string())
            .set("heartbeat.interval.ms", "2000")
            .set("max.poll.interval.ms", "300000");
        config
    }

    /// A reader without a group. `isolation` is Kafka's isolation level.
    pub fn reader(&self, isolation: &str) -> ClientConfig {
        let mut config = self.base.clone();
        config
            // Never used: such a reader joins no group. librdkafka wants a name.
            .set("group.id", "drover-reader")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("isolation.level", isolation)
            .set("enable.partition.eof", "true")
            // Records that vanished before we read them are an error, never a
            // silent jump.
            .set("auto.offset.reset", "error")
            // The default of 1000 makes a copy 2.6 times slower.
            .set("fetch.queue.backoff.ms", "10")
            // Halves the memory at the same speed.
            .set("queued.max.messages.kbytes", "8192")
            .set("allow.auto.create.topics", "false");
        config
    }

    /// A transactional producer.
    pub fn transactional(&self, transactional_id: &str) -> ClientConfig {
        let mut config = self.producer();
        config
            .set("transactional.id", transactional_id)
            // A killed process holds its readers back for no longer than this.
            .set("transaction.timeout.ms", "10000");
        config
    }

    /// A plain, idempotent producer.
    pub fn producer(&self) -> ClientConfig {
        let mut config = self.base.clone();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("compression.type", "lz4")
            // A transaction waits for its last record, so each millisecond is
            // paid once a batch; larger requests do not make up for it.
            .set("linger.ms", "1")
            // As Java chooses partitions; librdkafka's default differs.
            .set("partitioner", "murmur2_random")
            .set("message.max.bytes", "10485760")
            .set("queue.buffering.max.messages", "500000")
            .set("queue.buffering.max.kbytes", "262144");
        config
    }

    /// A client for administration.
    pub fn admin(&self) -> ClientConfig {
        self.base.clone()
    }

    /// Fails with [`Code::BrokerUnreachable`] when no broker answers, and names
    /// the topics of `topics` that are not there ([`Code::TopicMissing`]).
    pub fn require_topics(&self, topics: &[String]) -> Result<()> {
        let consumer = self.questions()?;
        let metadata = consumer
            .fetch_metadata(None, PATIENCE)
            .map_err(|e| self.explain("asking the broker for its topics", &e))?;
        let missing: Vec<&str> = topics
            .iter()
            .filter(|topic| {
                !metadata
                    .topics()
                    .iter()
                    .any(|t| t.name() == topic.as_str() && !t.partitions().is_empty())
            })
            .map(String::as_str)
            .collect();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(Error::new(
                Code::TopicMissing,
                format!("these topics are not there: {}", missing.join(", ")),
            ))
        }
    }
}

/// Why a connection failed, without the address that librdkafka says twice:
/// `k:9: Connect to ipv4#10.0.0.1:9 failed: Connection refused`.
fn brief(reason: &str) -> String {
    match (
        reason.split_once(": Connect to "),
        reason.rsplit_once(" failed: "),
    ) {
        (Some((broker, _)), Some((_, why))) => format!("{broker}: {why}"),
        _ => reason.to_owned(),
    }
}

/// The address at which something answers that does not speak Kafka's protocol:
/// librdkafka takes its first bytes for the size of an answer.
fn no_broker(reason: &str) -> Option<&str> {
    let (place, why) = reason.split_once(": ")?;
    why.contains("Invalid response size").then_some(place)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use rdkafka::producer::BaseProducer;

    use super::*;
    use crate::config::{Document, Part};

    #[test]
    fn a_broker_that_is_away_is_told_in_a_sentence() {
        let config = KafkaConfig {
            brokers: "127.0.0.1:1".into(),
            partitions: 1,
            replication: None,
            client: BTreeMap::new(),
        };
        let client = Client::new(&config, "test");
        let error = client
            .reach(Duration::from_secs(5))
            .expect_err("nobody is there");
        assert_eq!(
            error.to_string(),
            "BROKER_UNREACHABLE: asking for the brokers: Kafka at 127.0.0.1:1 does not \
             answer (127.0.0.1:1: Connection refused); check kafka.brokers and that the \
             broker runs"
        );
        let tls = "sasl_ssl://k:9: SSL handshake failed";
        assert_eq!(brief(tls), tls);
    }

    /// PostgreSQL's port, for example: it refuses what it reads by `E…`.
    #[test]
    fn another_service_at_the_brokers_address_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address").to_string();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let mut connection = connection.expect("a connection");
                let mut read = [0; 64];
                let _ = connection.read(&mut read);
                let _ = connection.write_all(b"EFATAL:  unsupported frontend protocol\0");
            }
        });
        let config = KafkaConfig {
            brokers: address.clone(),
            partitions: 1,
            replication: None,
            client: BTreeMap::new(),
        };
        let error = Client::new(&config, "test")
            .reach(Duration::from_secs(5))
            .expect_err("it is no broker");
        let told =
            format!("; {address} answers, but not as a Kafka broker: another service's port, ");
        assert!(error.message.contains(&told), "{error}");
        assert_eq!(error.code, Code::BrokerUnreachable);
    }

    #[test]
    fn brokers_and_security_reach_every_client() {
        let text = "
id: m
tenantId: t
sourceType: x
kafka:
  brokers: kafka-1.example:9093,kafka-2.example:9093
  security.protocol: SASL_SSL
  client:
    sasl.mechanism: SCRAM-SHA-512
    sasl.username: drover
    sasl.password: open sesame
    ssl.endpoint.identification.algorithm: https
";
        let document = Document::parse("m.yaml", text.as_bytes()).expect("YAML");
        let config = document
            .migration(&document.environment(), Part::Skip, Part::Skip)
            .unwrap_or_else(|problems| panic!("{problems:?}"));
        let client = Client::new(&config.kafka, "loader-1");
        for made in [
            client.member("group", "loader-1"),
            client.reader("read_committed"),
            client.transactional("id"),
            client.producer(),
            client.admin(),
        ] {
            for (name, value) in [
                (
                    "bootstrap.servers",
                    "kafka-1.example:9093,kafka-2.example:9093",
                ),
                ("security.protocol", "SASL_SSL"),
                ("sasl.mechanism", "SCRAM-SHA-512"),
                ("sasl.username", "drover"),
                ("sasl.password", "open sesame"),
                ("ssl.endpoint.identification.algorithm", "https"),
            ] {
                assert_eq!(made.get(name), Some(value), "{name}");
            }
        }
        // And librdkafka, as it was built, knows how to speak so.
        client
            .producer()
            .create::<BaseProducer>()
            .expect("SASL over TLS is built in");
        assert!(!format!("{:?}", config.kafka).contains("sesame"));
    }

    /// The bundled librdkafka stalls for minutes under the consumer protocol of
    /// KIP-848 (Blizzard/node-rdkafka 1146), and refuses the settings that static
    /// range assignment needs under it (wolverine 3486).
    #[test]
    fn node_rdkafka_1146_members_speak_the_classic_protocol() {
        let config = KafkaConfig {
            brokers: "127.0.0.1:1".into(),
            partitions: 1,
            replication: None,
            client: BTreeMap::new(),
        };
        let member = Client::new(&config, "test").member("g", "i");
        assert_eq!(member.get("group.protocol"), None, "classic by default");
        assert_eq!(member.get("partition.assignment.strategy"), Some("range"));
        assert_eq!(member.get("session.timeout.ms"), Some("8000"));
        assert_eq!(member.get("auto.offset.reset"), Some("error"));
        // librdkafka takes them together.
        let made: Result<BaseConsumer, _> = member.create();
        assert!(made.is_ok(), "{:?}", made.err());
    }

    #[test]
    fn a_member_reads_only_what_is_committed() {
        let kafka = crate::config::KafkaConfig {
            brokers: "127.0.0.1:9".into(),
            partitions: 1,
            replication: None,
            client: std::collections::BTreeMap::new(),
        };
        let member = Client::new(&kafka, "t").member("group", "loader-1");
        for (name, value) in [
            ("isolation.level", "read_committed"),
            // Offsets go with the transaction, and no other way.
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", "error"),
        ] {
            assert_eq!(member.get(name), Some(value), "{name}");
        }
    }
}
