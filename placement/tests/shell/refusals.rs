//! What a member refuses to start with, in words that help.

use std::future::{pending, ready};

use quorate_consensus::engine::{Cf, Engine, RocksEngine, RocksOptions, WriteBatch};
use quorate_placement::{PlacementConfig, run};

use crate::support::{Member, alone, free_address, group};

async fn refused(config: PlacementConfig) -> String {
    run(config, pending()).await.unwrap_err().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_make_no_sense() {
    let folder = tempfile::tempdir().unwrap();
    let lone = alone(folder.path());
    let list = |members: &[&str]| PlacementConfig {
        members: members.iter().map(|member| (*member).to_owned()).collect(),
        ..lone.clone()
    };
    for (config, words) in [
        (list(&["1=a:1", "2=b:1"]), "list 1, 3 or 5: an even number"),
        (list(&["2=a:1"]), "this member's id is 1"),
        (list(&["1=a:1", "1=b:1", "2=c:1"]), "give each its own"),
        (list(&["1=a:1", "2=a:1", "3=c:1"]), "give each its own"),
        (list(&["a:1"]), "write it as 1=10.0.0.1:2379"),
        (list(&["1=http://a:1"]), "leave out the scheme"),
        (list(&["1=0.0.0.0:1"]), "every address"),
        (
            PlacementConfig { advertise: "b:1".to_owned(), ..list(&["1=a:1"]) },
            "advertise is b:1, members says a:1",
        ),
        (PlacementConfig { advertise: "http://a:1".to_owned(), ..lone.clone() }, "scheme"),
        (PlacementConfig { listen: "0.0.0.0:0".to_owned(), ..lone.clone() }, "set advertise"),
        (PlacementConfig { replicas: 2, ..lone.clone() }, "set it to 1, 3 or 5"),
        (PlacementConfig { save_interval_ms: 0, ..lone.clone() }, "save_interval_ms is 0"),
        (PlacementConfig { listen: "nonsense".to_owned(), ..lone.clone() }, "write HOST:PORT"),
    ] {
        let said = refused(config).await;
        assert!(said.contains(words), "{said}");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let said = refused(PlacementConfig { listen, ..lone }).await;
    assert!(said.contains("is taken by another process"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folders_that_belong_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let first = group(folder.path(), 1)[0].clone();
    let member = Member::start(first.clone());
    member.ready().await;
    let (listen, status_address) = (free_address(), String::new());
    let second = PlacementConfig { listen, status_address, ..first.clone() };
    let said = refused(second).await;
    assert!(said.contains("in use by another process"), "{said}");
    member.stop().await;

    let other = PlacementConfig { members: vec!["1=127.0.0.1:9".to_owned()], ..first.clone() };
    let said = refused(other).await;
    assert!(said.contains("was first started with members 1="), "{said}");
    let said = refused(PlacementConfig { initial_stores: 3, ..first.clone() }).await;
    assert!(said.contains("set up to start with 1 stores"), "{said}");
    let other = PlacementConfig { id: 2, members: Vec::new(), ..first.clone() };
    let said = refused(other).await;
    assert!(said.contains("is that of placement member 1"), "{said}");
    // The list may be left out, and the number too.
    let bare = PlacementConfig { members: Vec::new(), initial_stores: 0, ..first };
    run(bare, ready(())).await.unwrap();

    let store = folder.path().join("store");
    {
        let engine = RocksEngine::open(&store, &RocksOptions::default()).unwrap();
        let mut batch = WriteBatch::new();
        batch.put(Cf::Meta, "store's identity", "7");
        engine.write_synced(batch).unwrap();
    }
    let said = refused(PlacementConfig { data: store, ..alone(folder.path()) }).await;
    assert!(said.contains("perhaps a store's"), "{said}");
}
