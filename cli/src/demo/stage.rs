//! The cluster of a demo: processes in a temporary folder, which end with the demo however that
//! ends. The user's own cluster, its ports and its memory are not touched.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_client::placement::RegionInfo;
use quorate_client::{Client, ClientOptions, PlacementClient, PlacementOptions};
use quorate_proto::StoreId;
use quorate_proto::wire::placement::{SplitRegionRequest, StatusResponse};

use super::Common;
use super::load::{Load, PAUSE, Pace};
use super::records::Records;
use super::spread::Spread;
use crate::cluster::description::Role;
use crate::cluster::end;
use crate::cluster::local::Local;
use crate::cluster::spawn::Bond;
use crate::exit::{Failure, Outcome};
use crate::kv::import::{self, Loading};
use crate::output;
use crate::screen::{self, Screen};

/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(200);
/// How long one call of the demo's own clients may take.
const DEADLINE: Duration = Duration::from_secs(20);
/// Tasks that read under load.
const READERS: u64 = 4;

/// What a demo's cluster is made of.
pub(super) struct Shape {
    /// Placement members.
    pub(super) placements: u16,
    /// Stores.
    pub(super) stores: u16,
    /// Settings of every store, as TOML.
    pub(super) store_settings: &'static str,
}

/// See the module.
pub(super) struct Stage {
    /// What a person sees.
    pub(super) screen: Screen,
    /// The processes.
    pub(super) local: Local,
    /// A client of their placement.
    pub(super) placement: PlacementClient,
    /// The records.
    pub(super) records: Records,
    /// When the demo must be over.
    pub(super) deadline: Instant,
    client: Client,
    _folder: Folder,
}

/// A folder that goes with the demo.
struct Folder {
    path: PathBuf,
    keep: bool,
}

impl Folder {
    fn new(name: &str, keep: bool) -> Outcome<Self> {
        let path = std::env::temp_dir().join(format!("quorate-demo-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|error| {
            Failure::error(format!(
                "cannot create {}: {error}; name another place with TMPDIR",
                path.display()
            ))
        })?;
        Ok(Self { path, keep })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.keep {
            output::note(&format!("kept: {}", self.path.display()));
        } else if let Err(error) = std::fs::remove_dir_all(&self.path) {
            output::note(&format!("{} cannot be removed: {error}", self.path.display()));
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let members: Vec<_> = self.local.cluster().members.iter().collect();
        // What cannot be ended now ends with this process.
        if let Ok(left) = end::kill(&members)
            && !left.is_empty()
        {
            output::note(&format!("still running: {}", left.join(", ")));
        }
    }
}

impl Stage {
    /// Takes the records, starts the cluster, and waits until it is healthy.
    ///
    /// # Errors
    /// There are no records, or the cluster does not start.
    pub(super) async fn set(name: &str, common: &Common, shape: &Shape) -> Outcome<Self> {
        let deadline = Instant::now() + Duration::from_secs(common.limit);
        let screen = Screen::new();
        let folder = Folder::new(name, common.keep)?;
        let records = Records::take(common.records.as_deref(), &folder.path, common.count)?;
        screen.say(&format!(
            "{} real records; starting {} and {} in {}",
            records.keys.len(),
            output::plural(u64::from(shape.placements), "placement member"),
            output::plural(u64::from(shape.stores), "store"),
            folder.path.display(),
        ));
        let settings = folder.path.join("store.toml");
        std::fs::write(&settings, shape.store_settings).map_err(|error| {
            Failure::error(format!("cannot write {}: {error}", settings.display()))
        })?;
        let cluster = crate::cluster::temporary(shape.placements, shape.stores)?;
        cluster.save(&folder.path)?;
        let mut local = Local::open(&folder.path, Bond::ThisProcess)?;
        if let Err(failure) = local.start_missing(deadline).await {
            let members: Vec<_> = local.cluster().members.iter().collect();
            end::kill(&members)?;
            return Err(failure);
        }
        let (placement, client) = clients(&local).await?;
        let stage = Self { screen, local, placement, records, deadline, client, _folder: folder };
        stage.local.ready(|_| true, deadline)?;
        stage.local.healthy(deadline).await?;
        stage.screen.say("healthy");
        Ok(stage)
    }

    /// The folder of the demo.
    pub(super) fn folder(&self) -> &Path {
        self.local.folder()
    }

    /// What placement says.
    ///
    /// # Errors
    /// It does not answer.
    pub(super) async fn status(&self) -> Outcome<StatusResponse> {
        Ok(self.placement.status().await?)
    }

    /// All regions in the order of their keys.
    ///
    /// # Errors
    /// Placement does not answer.
    pub(super) async fn regions(&self) -> Outcome<Vec<RegionInfo>> {
        Ok(self.placement.scan_regions(Bytes::new(), Bytes::new(), 100_000).await?)
    }

    /// Starts the checked load at so many places.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn load(&self, places: usize) -> Outcome<Load> {
        self.paced_load(places, Pace::After(PAUSE))
    }

    /// [`Self::load`] with writers at a pace of the caller's choice.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn paced_load(&self, places: usize, pace: Pace) -> Outcome<Load> {
        let placement = self.local.cluster().placement();
        let load = Load::start(placement, &self.records.spread(places), READERS, pace)?;
        self.screen.say(&format!(
            "load: one writer at each of {places} places, {READERS} readers; every answer is checked"
        ));
        Ok(load)
    }

    /// Begins to load the records, apart from this task; the count of those written, and what
    /// waits for the end.
    pub(super) fn import(&self) -> (Arc<AtomicU64>, tokio::task::JoinHandle<Outcome>) {
        let loading = Loading {
            file: self.records.file.clone(),
            strict: true,
            concurrency: 8,
            retry: Duration::from_secs(60),
        };
        let counted = Arc::new(AtomicU64::new(0));
        let (client, count) = (self.client.clone(), Arc::clone(&counted));
        let task =
            tokio::spawn(async move { import::load_counted(&client, &loading, count).await });
        (counted, task)
    }

    /// Loads the records, and shows how far that is.
    ///
    /// # Errors
    /// They are not taken.
    pub(super) async fn import_all(&mut self) -> Outcome {
        let (counted, task) = self.import();
        while !task.is_finished() {
            self.screen.rows(vec![self.import_row(&counted)]);
            if let Err(late) = self.in_time("the records are loaded") {
                task.abort();
                return Err(late);
            }
            tokio::time::sleep(POLL).await;
        }
        task.await.map_err(|error| Failure::error(format!("the import broke: {error}")))??;
        self.screen.clear();
        self.screen.say(&format!("{} records loaded", counted.load(Ordering::Relaxed)));
        Ok(())
    }

    /// A bar of the import.
    pub(super) fn import_row(&self, counted: &AtomicU64) -> String {
        let (done, all) = (counted.load(Ordering::Relaxed), self.records.keys.len() as u64);
        format!("import {} {done} of {all} records", screen::bar(done, all))
    }

    /// Reads every record back and compares; how many there are.
    ///
    /// # Errors
    /// Records are missing or differ, or cannot be read in time.
    pub(super) async fn verify(&self) -> Outcome<u64> {
        let counted = Arc::new(AtomicU64::new(0));
        let compared = import::verify_counted(&self.client, &self.records.file, counted);
        match tokio::time::timeout_at(self.deadline.into(), compared).await {
            Ok(compared) => compared,
            Err(_) => {
                Err(Failure::error("not done in time: all records are read back and compared"))
            }
        }
    }

    /// Loads the records, cuts them into so many regions, and starts the load at so many places.
    ///
    /// # Errors
    /// One of them cannot be done in time.
    pub(super) async fn furnish(&mut self, regions: usize, places: usize) -> Outcome<Load> {
        self.import_all().await?;
        self.split_into(regions).await?;
        self.load(places)
    }

    /// Splits the records into so many regions, and spreads their leaders.
    ///
    /// # Errors
    /// Placement refuses, or leaders are not spread in time.
    pub(super) async fn split_into(&self, regions: usize) -> Outcome {
        let step = self.records.keys.len() / regions;
        let keys: Vec<Bytes> =
            (1..regions).map(|number| self.records.keys[number * step].clone()).collect();
        for keys in keys.chunks(16) {
            let request = SplitRegionRequest { keys: keys.to_vec(), region_id: 0 };
            self.placement.split_region(request).await?;
        }
        self.balanced().await?;
        self.screen.say(&format!("{regions} regions, spread over the stores"));
        Ok(())
    }

    /// Waits until every store has its share of replicas and leaders.
    ///
    /// # Errors
    /// That is not so in time.
    pub(super) async fn balanced(&self) -> Outcome {
        let ids = self.ids().await?;
        loop {
            let spread = Spread::of(&self.regions().await?, &ids);
            if spread.is_even() {
                return Ok(());
            }
            self.in_time(&format!("stores have their share ({})", spread.words()))?;
            self.pause().await;
        }
    }

    /// Shortens what slows down how replicas move, so that a person sees the end of it.
    ///
    /// # Errors
    /// Placement refuses.
    pub(super) async fn move_fast(&self) -> Outcome {
        self.change(&[
            ("lifecycle.stable_ms", "500"),
            ("store_limit.additions", "1000"),
            ("store_limit.removals", "1000"),
        ])
        .await
    }

    /// Changes settings of the cluster, and says so.
    ///
    /// # Errors
    /// Placement refuses.
    pub(super) async fn change(&self, settings: &[(&str, &str)]) -> Outcome {
        let changes =
            settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let changed = self.placement.change_settings(changes.collect()).await?;
        let words: Vec<String> = settings
            .iter()
            .map(|(name, value)| {
                let default = changed.iter().find(|setting| setting.name == *name);
                let default = default.map_or("", |setting| setting.default_value.as_str());
                format!("{name} {value} (default {default})")
            })
            .collect();
        self.screen.say(&format!("demo settings: {}", words.join(", ")));
        Ok(())
    }

    /// Adds a store and waits until it has joined; its name and its id.
    ///
    /// # Errors
    /// It does not join in time.
    pub(super) async fn add_store(&mut self) -> Outcome<(String, StoreId)> {
        let (name, id, _) = self.local.add_store(self.deadline).await?;
        let id = StoreId(id);
        self.screen.say(&format!("{name} joined as {id}"));
        Ok((name, id))
    }

    /// Fails where the demo has taken too long.
    ///
    /// # Errors
    /// It has; `what` says what it still waited for.
    pub(super) fn in_time(&self, what: &str) -> Outcome {
        if Instant::now() < self.deadline {
            return Ok(());
        }
        Err(Failure::error(format!(
            "not done in time: {what} (allow more with --limit SECONDS, or see {})",
            self.folder().join("logs").display()
        )))
    }

    /// Waits until no operator has been under way for so long.
    ///
    /// # Errors
    /// That is not so in time.
    pub(super) async fn rests(&mut self, load: &Load, time: Duration) -> Outcome {
        let mut since = self.screen.elapsed();
        while self.screen.elapsed() - since < time {
            if let Some(one) = self.placement.operators(0, false).await?.first() {
                since = self.screen.elapsed();
                self.in_time(&format!("nothing moves any more ({}: {})", one.kind, one.reason))?;
            }
            self.screen.rows(vec![load.line()]);
            self.pause().await;
        }
        Ok(())
    }

    /// Ids of all stores.
    ///
    /// # Errors
    /// Placement does not answer.
    pub(super) async fn ids(&self) -> Outcome<Vec<StoreId>> {
        let ids = self.local.store_ids(self.deadline).await?;
        Ok(ids.into_values().map(StoreId).collect())
    }

    /// Lets some time pass.
    pub(super) async fn pause(&self) {
        tokio::time::sleep(POLL).await;
    }

    /// Names of the stores in order.
    pub(super) fn stores(&self) -> Vec<String> {
        self.local.cluster().of(Role::Store).map(|member| member.name()).collect()
    }
}

async fn clients(local: &Local) -> Outcome<(PlacementClient, Client)> {
    let options = PlacementOptions { deadline: DEADLINE, ..PlacementOptions::default() };
    let placement = PlacementClient::connect(&local.cluster().placement(), options).await?;
    let options = ClientOptions { deadline: DEADLINE, ..ClientOptions::default() };
    let client = Client::with_placement(placement.clone(), options).await?;
    Ok((placement, client))
}
