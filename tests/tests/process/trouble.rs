//! Bad input and bad surroundings: one clear sentence, the right exit code, and nothing lost.

use std::time::{Duration, Instant};

use quorate_consensus::engine::{Cf, Engine, Reader, RocksEngine, RocksOptions, WriteBatch};
use quorate_proto::wire::command::StoreIdent;
use quorate_proto::wire::placement_state;
use quorate_tests::process::tikv::{
    RawGetRequest, RawGetResponse, RawPutRequest, RawPutResponse, Wire,
};
use quorate_tests::process::{Cluster, Node, Shape, free_pair, free_port, run, until};

use crate::RECOVERY;

/// How long a process that cannot start may take to say so.
const SOON: Duration = Duration::from_secs(15);

/// A store of this cluster under another name, which takes part in nothing yet.
fn another_store(cluster: &Cluster, name: &str, more: &[String]) -> Node {
    let mut flags = vec![format!("--placement={}", cluster.placement_addresses().join(","))];
    flags.extend_from_slice(more);
    Node::at(cluster.home(), "store", name, free_pair(), flags)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_cannot_start_say_why() {
    let mut cluster = Cluster::start(Shape::small()).await;
    let client = cluster.client().await;
    client.put("kept", "value").await.unwrap();

    // A port in use.
    let (taken, (_, status)) = (cluster.stores[0].address.clone(), free_pair());
    let placement = format!("--placement={}", cluster.placements[0].address);
    let pair = (taken.clone(), status);
    let mut node = Node::at(cluster.home(), "store", "port", pair, vec![placement]);
    node.start();
    node.refuses(SOON, &[&taken, "is taken by another process", "free port"]);

    // A data folder in use.
    let in_use = format!("--data={}", cluster.stores[0].data.display());
    let mut node = another_store(&cluster, "folder", &[]);
    node.replace_flag(&in_use);
    node.start();
    node.refuses(SOON, &["in use by another process", "folder of its own"]);

    // Settings that are none.
    let config = cluster.home().join("bad.toml");
    for (text, words) in [
        (
            "raft = { tick_ms = 100 }\nlisten = 7\n",
            vec!["bad.toml line 2", "`listen` must be a text"],
        ),
        (
            "[split]\nregion_byte = 7\n",
            vec!["line 2", "unknown key", "did you mean `split.region_bytes`"],
        ),
        ("[split\n", vec!["bad.toml line 1", "correct it"]),
        ("[split]\nconcurrent = 0\n", vec!["split.concurrent is 0", "set it to 1 or more"]),
    ] {
        std::fs::write(&config, text).unwrap();
        let mut node =
            another_store(&cluster, "config", &[format!("--config={}", config.display())]);
        node.start();
        node.refuses(SOON, &words);
        std::fs::remove_file(node.log_path()).unwrap();
    }

    // A placement group is set up once.
    cluster.placements[0].terminate();
    assert_eq!(cluster.placements[0].ended(SOON).code(), Some(0));
    cluster.placements[0].replace_flag("--initial-stores=3");
    cluster.placements[0].start();
    cluster.placements[0]
        .refuses(SOON, &["set up to start with 1 stores", "leave initial_stores out"]);
    cluster.placements[0].replace_flag("--initial-stores=1");
    cluster.placements[0].start();
    cluster.healthy().await;
    assert_eq!(client.get("kept").await.unwrap().as_deref(), Some(&b"value"[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folders_that_do_not_belong_are_refused_and_left_alone() {
    let mut cluster = Cluster::start(Shape::small()).await;
    let client = cluster.client().await;
    client.put("kept", "value").await.unwrap();

    // Another cluster's placement: its id is there before any store is.
    let (address, status) = free_pair();
    let members = vec![format!("--members=1={address}"), "--initial-stores=1".to_owned()];
    let mut other = Node::at(cluster.home(), "placement", "other", (address, status), members);
    other.start();
    other.ready(SOON);

    let store = &mut cluster.stores[0];
    store.terminate();
    assert_eq!(store.ended(Duration::from_secs(30)).code(), Some(0));
    let copy = cluster.home().join("copy");
    copy_folder(&cluster.stores[0].data, &copy);
    let mut lost = another_store(&cluster, "lost", &[]);
    lost.replace_flag(&format!("--data={}", copy.display()));
    lost.replace_flag(&format!("--placement={}", other.address));
    lost.start();
    lost.refuses(RECOVERY, &["belongs to cluster", "placement"]);

    // A copied folder: the store whose it is runs.
    cluster.stores[0].start();
    cluster.healthy().await;
    let mut twin = another_store(&cluster, "twin", &[]);
    twin.replace_flag(&format!("--data={}", copy.display()));
    twin.start();
    twin.refuses(RECOVERY, &["is in use", "empty"]);
    cluster.healthy().await;
    assert_eq!(client.get("kept").await.unwrap().as_deref(), Some(&b"value"[..]));

    // A newer version has written the folder.
    make_newer(
        &copy,
        |bytes| {
            let mut ident: StoreIdent = prost::Message::decode(bytes).unwrap();
            ident.format += 1;
            prost::Message::encode_to_vec(&ident)
        },
        b"i",
    );
    let mut newer = another_store(&cluster, "newer", &[]);
    newer.replace_flag(&format!("--data={}", copy.display()));
    newer.start();
    newer.refuses(SOON, &["has format 2", "reads up to 1", "start the newer version"]);

    other.kill();
    make_newer(
        &other.data,
        |bytes| {
            let mut identity: placement_state::Identity = prost::Message::decode(bytes).unwrap();
            identity.format = 3;
            prost::Message::encode_to_vec(&identity)
        },
        b"identity",
    );
    other.start();
    other.refuses(SOON, &["has format 3", "reads up to 2", "newer version"]);

    // A member does not start on a store's folder.
    let mut confused = Node::new(cluster.home(), "placement", 9, vec!["--id=1".to_owned()]);
    confused.replace_flag(&format!("--data={}", copy.display()));
    confused.start();
    confused.refuses(SOON, &["something else than a placement member's data", "another folder"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_cannot_be_written_stops_nobody() {
    let mut cluster = Cluster::start(Shape::small()).await;
    let full = std::path::Path::new("/dev/full");
    if !full.exists() {
        eprintln!("skipped: this system has no /dev/full");
        return;
    }
    let store = &mut cluster.stores[0];
    store.terminate();
    assert_eq!(store.ended(Duration::from_secs(30)).code(), Some(0));
    store.log_to(full);
    store.start();
    cluster.healthy().await;
    let client = cluster.client().await;
    client.put("kept", "value").await.unwrap();
    assert_eq!(client.get("kept").await.unwrap().as_deref(), Some(&b"value"[..]));
    // It has something to say when it ends, too.
    let store = &mut cluster.stores[0];
    store.terminate();
    assert_eq!(store.ended(Duration::from_secs(30)).code(), Some(0));
}

/// Rewrites one record of a folder that no process has open.
fn make_newer(folder: &std::path::Path, change: impl Fn(&[u8]) -> Vec<u8>, key: &[u8]) {
    let engine = RocksEngine::open(folder, &RocksOptions::default()).unwrap();
    let before = engine.get(Cf::Meta, key).unwrap().expect("every folder has an identity");
    let mut batch = WriteBatch::default();
    batch.put(Cf::Meta, key.to_vec(), change(&before));
    engine.write_synced(batch).unwrap();
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn input_beyond_a_limit_is_refused_by_the_command_and_by_the_store() {
    let cluster = Cluster::start(Shape::small()).await;
    let long = "k".repeat(4 * 1024 + 1);
    cluster.quorate(&["kv", "put", &long, "v"]).refused(1, &["4097 bytes", "limit of 4096"]);
    cluster.quorate(&["kv", "get", &long]).refused(1, &["limit of 4096"]);
    cluster.quorate(&["kv", "put", "", "v"]).refused(1, &["empty key", "at least one byte"]);
    cluster.quorate(&["kv", "put", "a\\x0", "v"]).refused(1, &["cannot be read", "\\xNN"]);
    cluster.quorate(&["kv", "put", "a"]).refused(1, &["VALUE"]);
    cluster
        .quorate(&["kv", "import", "no-such-file"])
        .refused(1, &["cannot read", "check the path"]);
    cluster.quorate(&["region", "show", "999"]).refused(1, &["no region r999", "region list"]);
    // A value over the limit does not fit a command line: a file has room for it.
    let file = cluster.home().join("large.tsv");
    std::fs::write(&file, format!("large\t{}\n", "v".repeat(1024 * 1024 + 1))).unwrap();
    let import = cluster.quorate(&["kv", "import", file.to_str().unwrap(), "--strict"]);
    import.refused(1, &["line 1", "1048577 bytes", "1048576 are allowed"]);

    let client = cluster.client().await;
    let error = client.put("large", vec![0; 1024 * 1024 + 1]).await.unwrap_err().to_string();
    assert!(error.contains("1048577 bytes, the limit is 1048576"), "{error}");
    client.put("largest", vec![7; 1024 * 1024]).await.unwrap();
    assert_eq!(client.get("largest").await.unwrap().map(|value| value.len()), Some(1024 * 1024));

    // A client that does not check is told by the store.
    let route = client.locate("large").await.unwrap();
    let context = crate::handover::context_of(&route.region, route.leader);
    let mut store = Wire::connect(&cluster.stores[0].address).await.unwrap();
    for (key, value, words) in [
        (b"large".to_vec(), vec![0; 1024 * 1024 + 1], "limit"),
        (vec![b'k'; 4 * 1024 + 1], b"v".to_vec(), "limit"),
        (Vec::new(), b"v".to_vec(), "empty key"),
    ] {
        let request =
            RawPutRequest { context: Some(context.clone()), key, value, cf: String::new() };
        let said = match store.kv::<_, RawPutResponse>("RawPut", request).await {
            Ok(answer) => answer.error,
            Err(status) => status.message().to_owned(),
        };
        assert!(said.contains(words), "{words:?} is not in {said:?}");
    }
    let request =
        RawGetRequest { context: Some(context), key: b"large".to_vec(), cf: String::new() };
    assert!(store.kv::<_, RawGetResponse>("RawGet", request).await.unwrap().not_found);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_at_the_address_of_placement_ends_in_a_sentence() {
    let home = tempfile::tempdir().unwrap();
    let nobody = format!("127.0.0.1:{}", free_port());
    let begun = Instant::now();
    let arguments = ["kv", "get", "a", "--placement", &nobody, "--timeout", "1"];
    run(home.path(), &arguments).refused(3, &[&nobody, "unreachable", "check that it runs"]);
    run(home.path(), &["status", "--placement", &nobody, "--timeout", "1"]).refused(3, &[&nobody]);
    assert!(begun.elapsed() < SOON, "two refusals took {:?}", begun.elapsed());
    run(home.path(), &["status"]).refused(3, &["no cluster is known", "quorate up"]);
    run(home.path(), &["down"]).refused(3, &["no cluster is known"]);

    // A store waits for placement, says so, and can be told to end meanwhile.
    let mut store = Node::new(home.path(), "store", 1, vec![format!("--placement={nobody}")]);
    store.start();
    let page = until("the store answers", SOON, || {
        store.page("/ready").map_err(|error| error.to_string())
    });
    assert_eq!((page.status, page.body.contains("placement has not answered")), (503, true));
    store.terminate();
    assert_eq!(store.ended(SOON).code(), Some(0), "{}", store.log_text());
}
