//! Faults of a cluster of three RabbitMQ nodes under load, with two workers: faults 31 to 36 in docs/develop/reliability.md.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::harness::{Cluster, DEADLINE, LoadPublisher, SHORT_TIMEOUTS, TestEnv, Worker, eventually, scaled};

/// The names of four shards.
fn shards(queue: &str) -> Vec<String> {
    std::iter::once(queue.to_owned()).chain((2..=4).map(|shard| format!("{queue}.{shard}"))).collect()
}

/// A cluster with two workers.
struct ClusterTest {
    cluster: Cluster,
    env: TestEnv,
    workers: Vec<Worker>,
    /// Number of events published so far.
    published: i32,
}

impl ClusterTest {
    async fn start() -> Self {
        let cluster = Cluster::start();
        let env = TestEnv::at(cluster.uris(), crate::harness::server_uri("TICKETLOG_STORE__URI")).await;
        cluster.wait_until_complete(&env.queue()).await;
        let workers = vec![env.worker_with(&SHORT_TIMEOUTS).await, env.worker_with(&SHORT_TIMEOUTS).await];
        ClusterTest { cluster, env, workers, published: 0 }
    }

    /// Replaces the workers, under load, by workers with four shards.
    async fn grow(&mut self) {
        let load = LoadPublisher::start(&self.env, self.published);
        let settings: Vec<_> = SHORT_TIMEOUTS.into_iter().chain([("BROKER__SHARDS", "4")]).collect();
        let grown = vec![self.env.worker_with(&settings).await, self.env.worker_with(&settings).await];
        for (worker, old) in grown.iter().zip(&mut self.workers) {
            worker.wait_until_ready().await;
            assert_eq!(old.stop().await.code(), Some(0));
        }
        self.workers = grown;
        self.published = load.stop().await;
        self.env.reconnect().await;
    }

    /// Publishes while `fault` happens, and until events are stored again. Then asserts that all of them are stored.
    async fn under_load(&mut self, row: &str, fault: impl AsyncFnOnce(&mut Cluster, &str)) {
        let before = self.env.count().await;
        let load = LoadPublisher::start(&self.env, self.published);
        eventually("events are stored", DEADLINE, async || self.env.count().await > before).await;
        fault(&mut self.cluster, &self.env.queue()).await;
        let after = self.env.count().await;
        eventually("events are stored again", DEADLINE, async || self.env.count().await > after).await;
        self.cluster.wait_until_complete(&self.env.queue()).await;
        self.published = load.stop().await;
        self.env.reconnect().await;
        let published = self.published as u64;
        eventually("everything is stored", DEADLINE, async || self.env.count().await >= published).await;
        self.env.wait_for_depth(&self.env.queue(), 0).await;
        for worker in &self.workers {
            worker.wait_until_ready().await;
        }
        let workers: Vec<_> = self.workers.iter().collect();
        self.env.assert_all_stored(row, self.published, &workers).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_31_to_36_of_a_cluster_of_three() {
    let mut test = ClusterTest::start().await;
    let pause = scaled(1, 10);
    test.under_load("31 cluster, leader moved to each node", async |cluster, queue| {
        for node in [1, 2, 0] {
            cluster.move_leader(queue, node);
            tokio::time::sleep(pause / 2).await;
        }
    })
    .await;
    test.under_load("32 cluster, each node killed", async |cluster, queue| {
        for node in 0..3 {
            cluster.kill(node);
            tokio::time::sleep(pause).await;
            cluster.restart(&[node]);
            cluster.wait_until_complete(queue).await;
        }
    })
    .await;
    test.under_load("33 cluster, nodes restarted in turn", async |cluster, queue| {
        for node in 0..3 {
            cluster.shut_down(node);
            cluster.restart(&[node]);
            cluster.wait_until_complete(queue).await;
        }
    })
    .await;
    test.under_load("34 cluster, all nodes stopped in order", async |cluster, _| {
        for node in 0..3 {
            cluster.shut_down(node);
        }
        tokio::time::sleep(pause).await;
        cluster.restart(&[0, 1, 2]);
    })
    .await;
    test.under_load("35 cluster, leader separated from the others", async |cluster, queue| {
        let leader = cluster.leader(queue);
        cluster.separate(leader, true);
        tokio::time::sleep(Duration::from_secs(4) + pause).await;
        cluster.separate(leader, false);
    })
    .await;
    test.grow().await;
    test.under_load("36 cluster, one queue becomes four, each node killed", async |cluster, queue| {
        for node in 0..3 {
            cluster.kill(node);
            tokio::time::sleep(pause).await;
            cluster.restart(&[node]);
            for queue in shards(queue) {
                cluster.wait_until_complete(&queue).await;
            }
        }
    })
    .await;
    let leaders: BTreeSet<usize> = shards(&test.env.queue()).iter().map(|queue| test.cluster.leader(queue)).collect();
    println!("the leaders of four shards are on {} nodes", leaders.len());
    for worker in &mut test.workers {
        assert_eq!(worker.stop().await.code(), Some(0));
    }
}
