//! kill -9 of placement's leader, and of the store that leads the region, at every step of a change
//! of members, under a checked load.
//!
//! A step is made long enough to be hit, not guessed: snapshots are slow, members are held, and a
//! configuration is kept from being left by standing still those whose votes it needs. A step that
//! was over before the kill is tried again with another region, a bounded number of times; one that
//! is never hit fails the test.
//!
//! After each kill the victim is started again and the change ends as wanted. In the end nothing is
//! under way, nobody has ever seen an even number of voters, each promotion was told once, and the
//! load's accounts are right.

#[path = "steps/look.rs"]
mod look;
#[path = "steps/story.rs"]
mod story;

use bytes::Bytes;
use quorate_client::KvPair;
use quorate_proto::wire::placement as wire;
use quorate_proto::{RegionId, Role, StoreId};
use quorate_tests::process::{Cluster, eventually};

use self::look::{Look, Step, Wanted};
use self::story::{Change, Down, Story, Victim};
use crate::membership::{CHANGE, change, region_of, settled, without};

/// Regions that are grown at the most: two are needed.
const GROWTHS: usize = 5;
/// Regions with a replica that moves at the most: four are needed.
const SWAPS: usize = 9;
/// Placement adds replicas by itself, or it does not.
const ADDITIONS: (&str, &str) = ("store_limit.additions", "1000");
const NO_ADDITIONS: (&str, &str) = ("store_limit.additions", "0");
/// A snapshot of this takes some seconds at the rate of [`story`].
const DATA_KIB: usize = 3_072;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_step_of_a_join_and_a_promotion_survives_either_leader() {
    let steps = [Step::Added, Step::Syncing, Step::Pairing, Step::Joint, Step::Left];
    let mut story = Story::begin(2, &steps).await;
    let (mut grown, mut rules) = (Vec::new(), Vec::new());
    // The first region begins before the first letter, so that no rule is of it alone.
    for letter in (b'b'..).take(GROWTHS) {
        let (from, to) = (char::from(letter), char::from(letter + 1));
        rules.push(format!("5 voters from \"{from}\" to \"{to}\""));
        grown.push(grow(&mut story, letter, rules.join("; ")).await);
        if story.is_done() {
            break;
        }
    }
    story.end(&grown).await;
}

/// Three voters become five, with all kills that are owed.
async fn grow(story: &mut Story, letter: u8, rules: String) -> RegionId {
    let region = region_of(&story.placement, letter).await.id;
    let change = Change { region, wanted: Wanted::Growth };
    fill(&story.cluster, letter).await;
    story.set(&[("placement.rules", &rules), ADDITIONS]).await;
    story.strike(change, Step::Added).await;
    // No partner comes before the first one has waited for it.
    story.set(&[NO_ADDITIONS]).await;
    story.strike(change, Step::Syncing).await;
    story.strike(change, Step::Pairing).await;
    story.set(&[ADDITIONS]).await;

    // Until the second learner is released, the first one has no partner.
    let first = story.look(change).await.with(Role::Learner)[0];
    let second = eventually("a partner comes", CHANGE, || async {
        let look = Look::at(&story.placement, region).await?;
        let mut others = look.states.iter().filter(|(store, _)| *store != first);
        others.next().map(|(store, _)| *store).ok_or_else(|| format!("{look:?}"))
    })
    .await;
    story.hold(change, second, true).await;
    story.ready(change, &[first, second]).await;
    strike_in_joint(story, change, &[first, second], second, Step::Joint).await;

    story.strike(change, Step::Left).await;
    let stores = story.stores.clone();
    settled(&story.placement, letter, &stores).await;
    story.rests().await;
    region
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_step_of_a_move_survives_either_leader() {
    let steps = [Step::Added, Step::Joint, Step::Left, Step::Removed];
    let mut story = Story::begin(1, &steps).await;
    let mut moved = Vec::new();
    for letter in (b'b'..).take(SWAPS) {
        moved.push(swap(&mut story, letter).await);
        if story.is_done() {
            break;
        }
    }
    story.end(&moved).await;
}

/// A replica moves to the fourth store, with all kills that are owed.
async fn swap(story: &mut Story, letter: u8) -> RegionId {
    let region = region_of(&story.placement, letter).await;
    let to = story.stores[3];
    let look = Look::at(&story.placement, region.id).await.unwrap();
    let from =
        look.with(Role::Voter).into_iter().find(|store| Some(*store) != look.leader).unwrap();
    let request = wire::ChangeReplicaRequest {
        region_id: region.id.0,
        add_store_id: to.0,
        remove_store_id: from.0,
        analytics: false,
    };
    let wanted = Wanted::Swap { from, to };
    let moving = Change { region: region.id, wanted };
    change(&story.placement, request).await;
    story.hold(moving, to, true).await;
    story.strike(moving, Step::Added).await;
    story.ready(moving, &[to]).await;
    let step = if story.owed(Step::Joint).is_some() { Step::Joint } else { Step::Left };
    strike_in_joint(story, moving, &[to], to, step).await;

    story.strike(moving, Step::Removed).await;
    let stores: Vec<StoreId> = region.peers.iter().map(|peer| peer.store).collect();
    settled(&story.placement, letter, &without(&stores, from, to)).await;
    story.rests().await;
    region.id
}

/// Releases the held learner and kills at the joint configuration, or right after it was left.
///
/// While the newcomers and one of the old voters stand still, the old voters have a majority that
/// can enter the joint configuration, and the new ones have none that could leave it. Once it is
/// left, placement writes down what has become of its members before it orders the next step; so
/// while its followers stand still, it does not.
async fn strike_in_joint(
    story: &mut Story,
    change: Change,
    newcomers: &[StoreId],
    held: StoreId,
    step: Step,
) {
    let Some(victim) = story.owed(step) else {
        return story.hold(change, held, false).await;
    };
    let leader = story.cluster.placement_leader().await;
    let look = story.look(change).await;
    let goes = match change.wanted {
        Wanted::Growth => None,
        Wanted::Swap { from, .. } => Some(from),
    };
    let stays = |store: &StoreId| Some(*store) != look.leader && Some(*store) != goes;
    let mut still = newcomers.to_vec();
    still.extend(look.with(Role::Voter).into_iter().find(stays));

    story.pause(&still);
    story.hold(change, held, false).await;
    let joint = story.glimpse(change, Step::Joint).await;
    let down = match (joint, step) {
        (Some(joint), Step::Joint) => {
            let down = story.kill(victim, leader, &joint);
            story.hit(step, victim);
            story.resume(&still);
            down
        }
        (Some(_), _) => strike_after_joint(story, change, &still, victim, leader).await,
        (None, _) => {
            story.resume(&still);
            None
        }
    };
    story.restart(down).await;
}

async fn strike_after_joint(
    story: &mut Story,
    change: Change,
    still: &[StoreId],
    victim: Victim,
    leader: usize,
) -> Option<Down> {
    let members = &story.cluster.placements;
    let followers: Vec<usize> = (0..members.len()).filter(|member| *member != leader).collect();
    followers.iter().for_each(|member| members[*member].pause());
    story.resume(still);
    let left = story.glimpse(change, Step::Left).await;
    let down = left.and_then(|left| story.kill(victim, leader, &left));
    if down.is_some() {
        story.hit(Step::Left, victim);
    }
    followers.iter().for_each(|member| story.cluster.placements[*member].resume());
    down
}

/// Writes random bytes to a letter's region.
async fn fill(cluster: &Cluster, letter: u8) {
    use rand::{Rng as _, SeedableRng as _};
    let mut random = rand::rngs::SmallRng::seed_from_u64(u64::from(letter));
    let client = cluster.client().await;
    let numbers: Vec<usize> = (0..DATA_KIB).collect();
    for numbers in numbers.chunks(128) {
        let mut pair = |number: &usize| {
            let mut value = vec![0; 1_024];
            random.fill(&mut value[..]);
            let key = Bytes::from(format!("{}/data/{number:05}", char::from(letter)));
            (key, Bytes::from(value))
        };
        let pairs: Vec<KvPair> = numbers.iter().map(&mut pair).collect();
        client.batch_put(pairs).await.unwrap();
    }
}
