/* A consumer is told by a Fetch answer that its partitions have no leader, and
 * later that they have one again. It must take over nothing that was not in the
 * answer, and get what is written then. Ends with 0 when it does, with 1 when it
 * has read what nobody wrote. librdkafka's own in-process broker answers. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "rdkafka.h"
#include "rdkafka_mock.h"

#define TOPIC      "t"
#define PARTITIONS 4

static void fail(const char *what) {
        fprintf(stderr, "%s\n", what);
        exit(2);
}

/* Of an answer that is taken over as it is, librdkafka logs nothing here. */
static void on_log(const rd_kafka_t *rk, int level, const char *facility,
                   const char *line) {
        (void)rk;
        if (!strcmp(facility, "METADATAUPDATE")) {
                fprintf(stderr, "<%d> %s\n", level, line);
                exit(1);
        }
}

static rd_kafka_t *client(rd_kafka_type_t type, const char *brokers) {
        char why[256];
        rd_kafka_t *rk;
        rd_kafka_conf_t *conf = rd_kafka_conf_new();
        rd_kafka_conf_set_log_cb(conf, on_log);
        rd_kafka_conf_set(conf, "bootstrap.servers", brokers, NULL, 0);
        if (type == RD_KAFKA_CONSUMER) {
                rd_kafka_conf_set(conf, "group.id", "g", NULL, 0);
                rd_kafka_conf_set(conf, "fetch.wait.max.ms", "50", NULL, 0);
        }
        if (!(rk = rd_kafka_new(type, conf, why, sizeof(why))))
                fail(why);
        return rk;
}

/* Writes a message into each partition. */
static void produce(rd_kafka_t *producer, const char *value) {
        int p;
        for (p = 0; p < PARTITIONS; p++)
                if (rd_kafka_producev(producer, RD_KAFKA_V_TOPIC(TOPIC),
                                      RD_KAFKA_V_PARTITION(p),
                                      RD_KAFKA_V_VALUE((void *)value,
                                                       strlen(value)),
                                      RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
                                      RD_KAFKA_V_END))
                        fail("can't produce");
        if (rd_kafka_flush(producer, 30000))
                fail("not flushed");
}

/* Waits for a message of each partition. */
static void consume(rd_kafka_t *consumer, const char *value) {
        int got = 0, polls = 0;
        while (got < PARTITIONS && polls++ < 300) {
                rd_kafka_message_t *m = rd_kafka_consumer_poll(consumer, 100);
                if (!m)
                        continue;
                if (!m->err && m->len == strlen(value) &&
                    !memcmp(m->payload, value, m->len))
                        got++;
                rd_kafka_message_destroy(m);
        }
        if (got < PARTITIONS)
                fail("a message did not come");
}

int main(void) {
        char why[256];
        int p;
        rd_kafka_t *host = rd_kafka_new(RD_KAFKA_PRODUCER, rd_kafka_conf_new(),
                                        why, sizeof(why));
        rd_kafka_mock_cluster_t *cluster = rd_kafka_mock_cluster_new(host, 2);
        rd_kafka_topic_partition_list_t *all =
            rd_kafka_topic_partition_list_new(PARTITIONS);
        rd_kafka_t *producer, *consumer;

        rd_kafka_mock_topic_create(cluster, TOPIC, PARTITIONS, 1);
        for (p = 0; p < PARTITIONS; p++) {
                rd_kafka_mock_partition_set_leader(cluster, TOPIC, p, 1);
                rd_kafka_topic_partition_list_add(all, TOPIC, p)->offset = 0;
        }
        producer = client(RD_KAFKA_PRODUCER,
                          rd_kafka_mock_cluster_bootstraps(cluster));
        consumer = client(RD_KAFKA_CONSUMER,
                          rd_kafka_mock_cluster_bootstraps(cluster));
        rd_kafka_assign(consumer, all);
        produce(producer, "before");
        consume(consumer, "before");

        /* The old leader goes on to be asked, and answers with -1. */
        for (p = 0; p < PARTITIONS; p++) {
                rd_kafka_mock_partition_push_leader_response(cluster, TOPIC, p,
                                                             -1, -1);
                rd_kafka_mock_partition_set_leader(cluster, TOPIC, p, 2);
        }
        produce(producer, "after");
        consume(consumer, "after");
        return 0;
}
