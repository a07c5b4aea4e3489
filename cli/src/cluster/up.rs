//! `quorate up`: a cluster from nothing, or the one of yesterday again.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use quorate_client::{PlacementClient, PlacementOptions};
use quorate_proto::wire::placement::StatusResponse;

use super::description::{Cluster, Member, Role};
use super::find::{self, DATA_VARIABLE, DEFAULT_DATA};
use super::lock::Lock;
use super::spawn::Launch;
use super::{ports, probe};
use crate::exit::{Failure, Outcome};
use crate::output;

/// Between two looks at whether a process is ready.
const POLL: Duration = Duration::from_millis(50);
/// After this long without being ready, a line says who is waited for.
const REMARK_AFTER: Duration = Duration::from_secs(5);

/// Starts placement members and stores on this machine, or the same ones again.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct UpArgs {
    /// Where the cluster keeps its data, logs and description.
    #[arg(long, value_name = "FOLDER", default_value = DEFAULT_DATA, env = DATA_VARIABLE)]
    data: PathBuf,
    /// Placement members of a new cluster: 1, 3 or 5 [default: 3]
    #[arg(long, value_name = "COUNT", value_parser = odd)]
    placements: Option<u16>,
    /// Stores of a new cluster, 1 to 64 [default: 3]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=64))]
    stores: Option<u16>,
    /// Discard the data at `quorate down`
    #[arg(long)]
    ephemeral: bool,
    /// First port of the placement members; every tenth is used [default: 2379, or free ones]
    #[arg(long, value_name = "PORT")]
    placement_port: Option<u16>,
    /// First port of the stores; every tenth is used [default: 20160, or free ones]
    #[arg(long, value_name = "PORT")]
    store_port: Option<u16>,
    /// Settings for every placement member, kept with the data
    #[arg(long, value_name = "FILE")]
    placement_config: Option<PathBuf>,
    /// Settings for every store, kept with the data [default: regions of 4 MiB, to see them split]
    #[arg(long, value_name = "FILE")]
    store_config: Option<PathBuf>,
    /// Seconds to wait until everything is healthy
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    wait: u64,
    /// Stay in this login session (the scheduler shares processors by session, so that what is
    /// compared with each other must run in one)
    #[arg(long)]
    same_session: bool,
}

fn odd(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(count @ (1 | 3 | 5)) => Ok(count),
        Ok(_) | Err(_) => Err("a placement group has 1, 3 or 5 members".to_owned()),
    }
}

/// Runs the command.
///
/// # Errors
/// A port or folder in the way, a process that ends, or no health in time.
pub(crate) async fn up(args: UpArgs) -> Outcome {
    let shown = args.data.display().to_string();
    let folder = absolute(&args.data)?;
    let _lock = Lock::take(&folder)?;
    let mut cluster = match Cluster::load(&folder)? {
        Some(cluster) => again(cluster, &args, &shown)?,
        None => {
            demonstrate(&folder)?;
            plan(&args)?
        }
    };
    keep_config(&folder, Role::Placement, args.placement_config.as_deref())?;
    keep_config(&folder, Role::Store, args.store_config.as_deref())?;
    find::remember(&folder);

    let already = cluster.members.iter().filter(|member| member.running().is_some()).count();
    if already == cluster.members.len() {
        output::note(&format!("already running: {already} processes ({shown})"));
    }
    let deadline = Instant::now() + Duration::from_secs(args.wait);
    start_missing(&folder, &mut cluster, args.same_session, deadline).await?;
    let launch = Launch { folder: &folder, cluster: &cluster, same_session: args.same_session };
    ready(&launch, |_| true, deadline)?;
    let status = healthy(&launch, deadline).await?;
    output::emit(&summary(&cluster, &status, &shown))
}

/// The folder's full path, created where it is missing.
fn absolute(data: &Path) -> Outcome<PathBuf> {
    std::fs::create_dir_all(data).and_then(|()| data.canonicalize()).map_err(|error| {
        Failure::error(format!(
            "cannot create the data folder {}: {error}; choose another with --data",
            data.display()
        ))
    })
}

/// A cluster that exists: its shape and its addresses are what they were.
fn again(cluster: Cluster, args: &UpArgs, shown: &str) -> Outcome<Cluster> {
    let differs = |role: Role, asked: Option<u16>| {
        let count = cluster.of(role).count();
        asked.filter(|asked| usize::from(*asked) != count).map(|asked| (role, count, asked))
    };
    let difference =
        differs(Role::Placement, args.placements).or_else(|| differs(Role::Store, args.stores));
    if let Some((role, count, asked)) = difference {
        return Err(Failure::error(format!(
            "the cluster in {shown} has {count} {role} processes, not {asked}: leave the count \
             out, or choose another folder with --data"
        )));
    }
    if args.ephemeral && !cluster.ephemeral {
        return Err(Failure::error(format!(
            "the cluster in {shown} keeps its data: leave --ephemeral out, or choose another \
             folder with --data"
        )));
    }
    if args.placement_port.is_some() || args.store_port.is_some() {
        return Err(Failure::error(format!(
            "the cluster in {shown} has its addresses for good: leave the ports out, or choose \
             another folder with --data"
        )));
    }
    Ok(cluster)
}

/// A new cluster: counts and ports.
fn plan(args: &UpArgs) -> Outcome<Cluster> {
    let mut members = Vec::new();
    let roles = [
        (Role::Placement, args.placements.unwrap_or(3), args.placement_port, ports::PLACEMENT_PORT),
        (Role::Store, args.stores.unwrap_or(3), args.store_port, ports::STORE_PORT),
    ];
    for (role, count, asked, base) in roles {
        let chosen = match asked {
            Some(port) => ports::fixed(port, count).map_err(|holder| {
                let why = holder.map_or_else(
                    || format!("{count} processes do not fit above port {port}"),
                    |holder| holder.to_string(),
                );
                Failure::error(format!(
                    "{why}: stop it, or leave --{role}-port out to take free ones"
                ))
            })?,
            None => ports::choose(base, count).ok_or_else(|| {
                Failure::error(format!(
                    "no free ports found from {base} up: name some with --{role}-port"
                ))
            })?,
        };
        members.extend((1..).zip(chosen).map(|(number, port)| Member {
            role,
            number,
            address: format!("127.0.0.1:{port}"),
            status_address: format!("127.0.0.1:{}", port + 1),
            process: None,
        }));
    }
    Ok(Cluster::new(args.ephemeral, members))
}

/// Settings of the stores of a new cluster: small regions, so that a person sees them split.
const SMALL_REGIONS: &str = "\
# Settings of this cluster's stores, written by `quorate up`; change them and start it again.
# Small regions, so that they split before your eyes. Without these lines: 96 MiB.
[split]
region_bytes = 4194304
check_interval_ms = 500
";

/// Writes the settings of a new cluster's stores, unless there are some.
fn demonstrate(folder: &Path) -> Outcome {
    let path = folder.join("store.toml");
    if path.exists() {
        return Ok(());
    }
    std::fs::write(&path, SMALL_REGIONS).map_err(|error| {
        Failure::error(format!("cannot write {}: {error}; check the disk", path.display()))
    })
}

/// Keeps a copy of a settings file, so that the next `up` uses the same.
fn keep_config(folder: &Path, role: Role, from: Option<&Path>) -> Outcome {
    let Some(from) = from else { return Ok(()) };
    std::fs::copy(from, folder.join(format!("{role}.toml"))).map(|_| ()).map_err(|error| {
        Failure::error(format!(
            "cannot copy {} to {}: {error}; check the path",
            from.display(),
            folder.display()
        ))
    })
}

/// Starts every member that does not run, and writes down each as soon as it does.
///
/// The stores of a new cluster join one after the other, so that store-1 is s1.
async fn start_missing(
    folder: &Path,
    cluster: &mut Cluster,
    same_session: bool,
    deadline: Instant,
) -> Outcome {
    let fresh = cluster.members.iter().all(|member| member.process.is_none());
    for at in 0..cluster.members.len() {
        let member = &cluster.members[at];
        if member.running().is_some() {
            continue;
        }
        free(member)?;
        let launch = Launch { folder, cluster, same_session };
        if fresh && member.role == Role::Store && member.number == 1 {
            ready(&launch, |member| member.role == Role::Placement, deadline)?;
        }
        let process = launch.start(member)?;
        let number = (member.role == Role::Store).then_some(member.number);
        cluster.members[at].process = Some(process);
        cluster.save(folder)?;
        if let Some(number) = number.filter(|_| fresh) {
            let launch = Launch { folder, cluster, same_session };
            joined(&launch, usize::from(number), deadline).await?;
        }
    }
    Ok(())
}

/// Nobody else listens where a member is to listen.
fn free(member: &Member) -> Outcome {
    for address in [&member.address, &member.status_address] {
        let port = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        if let Some(holder) = port.and_then(ports::in_the_way) {
            return Err(Failure::error(format!(
                "{} cannot start: {holder}; stop that process, or start another cluster with \
                 --data FOLDER",
                member.name()
            )));
        }
    }
    Ok(())
}

/// Waits until placement knows that many stores.
async fn joined(launch: &Launch<'_>, stores: usize, deadline: Instant) -> Outcome {
    loop {
        if let Some(ended) = launch
            .cluster
            .members
            .iter()
            .find(|member| member.process.is_some() && member.running().is_none())
        {
            return Err(launch.ended(ended));
        }
        // Until there is a leader, nobody answers.
        let known = match status(launch, deadline).await {
            Ok(status) => status.stores.len(),
            Err(_) => 0,
        };
        if known >= stores {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(Failure::unavailable(format!(
                "store-{stores} has not joined in time; see {}/logs, or wait longer with --wait \
                 SECONDS",
                launch.folder.display()
            )));
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn status(launch: &Launch<'_>, deadline: Instant) -> Outcome<StatusResponse> {
    let options = PlacementOptions {
        deadline: deadline.saturating_duration_since(Instant::now()).max(POLL),
        ..PlacementOptions::default()
    };
    let placement = PlacementClient::connect(&launch.cluster.placement(), options).await?;
    Ok(placement.status().await?)
}

/// Waits until every process of those that count says that it is ready.
fn ready(launch: &Launch<'_>, counts: impl Fn(&Member) -> bool, deadline: Instant) -> Outcome {
    let begun = Instant::now();
    let mut waiting: Vec<&Member> =
        launch.cluster.members.iter().filter(|member| counts(member)).collect();
    let mut remarked = false;
    loop {
        if let Some(ended) = waiting.iter().find(|member| member.running().is_none()) {
            return Err(launch.ended(ended));
        }
        waiting.retain(|member| {
            !probe::page(&member.status_address, "/ready").is_ok_and(|page| page.status == 200)
        });
        if waiting.is_empty() {
            return Ok(());
        }
        let names = || waiting.iter().map(|member| member.name()).collect::<Vec<_>>().join(", ");
        if Instant::now() >= deadline {
            return Err(Failure::unavailable(format!(
                "not ready in time: {}; see {}/logs, or wait longer with --wait SECONDS",
                names(),
                launch.folder.display()
            )));
        }
        if !remarked && begun.elapsed() >= REMARK_AFTER {
            remarked = true;
            output::note(&format!("waiting for {}", names()));
        }
        std::thread::sleep(POLL);
    }
}

/// Waits until every region has its replicas and a leader.
async fn healthy(launch: &Launch<'_>, deadline: Instant) -> Outcome<StatusResponse> {
    loop {
        let status = status(launch, deadline).await?;
        let stores = launch.cluster.of(Role::Store).count();
        if crate::admin::health::judge(&status).is_healthy() && status.stores.len() >= stores {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            return Err(Failure {
                code: crate::exit::Code::Degraded,
                words: format!(
                    "started, but not healthy in time: {}; see `quorate status`",
                    crate::admin::health::judge(&status)
                ),
            });
        }
        tokio::time::sleep(POLL).await;
    }
}

/// How this program was called, so that the next command can be copied.
fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "quorate".to_owned())
}

/// What a person sees at the end.
fn summary(cluster: &Cluster, status: &StatusResponse, data: &str) -> String {
    let leader = status.members.iter().find(|member| member.leader);
    let leader = leader.map_or_else(
        || "no leader".to_owned(),
        |leader| match cluster.of(Role::Placement).find(|one| one.address == leader.address) {
            Some(member) => format!("leader {}", member.name()),
            None => format!("leader {}", leader.name),
        },
    );
    let up = status.stores.iter().filter(|store| store.state == "Up").count();
    let replicas = usize::try_from(status.replicas).unwrap_or(usize::MAX);
    let regions = format!("{} regions, {}/{replicas} replicas", status.regions, up.min(replicas));
    let line = |role: Role, what: &str| {
        let count = cluster.of(role).count();
        let name = if count == 1 { format!("{role}-1") } else { format!("{role}-1..{count}") };
        let addresses: Vec<&str> = cluster.of(role).map(|member| member.address.as_str()).collect();
        format!("✔ {name:<16} {what:<25} {}\n", addresses.join(" "))
    };
    let kept = if cluster.ephemeral {
        "discarded by `quorate down`"
    } else {
        "kept; --ephemeral discards"
    };
    let program = program();
    format!(
        "{}{}Data    {data} ({kept})\nTry     {program} kv put hello world      Stop  {program} down\n",
        line(Role::Placement, &leader),
        line(Role::Store, &regions),
    )
}
