//! A first start is told from a lost disk by what the others say.

use super::*;
use quorate_proto::Role;

const LIST: u64 = 77;

fn member(id: u64) -> Member {
    let (name, address) = (format!("placement-{id}"), format!("127.0.0.1:{id}"));
    Member { id: NodeId(id), name, address, role: Role::Voter }
}

/// Member 1 with folder 11 of a group of three.
fn judge(second: Heard, third: Heard) -> Verdict {
    let asker = Asker { me: NodeId(1), folder: 11, fingerprint: LIST };
    asker.judge(&[(member(2), second), (member(3), third)])
}

fn folders(all: &[(u64, u64)]) -> Folders {
    all.iter().map(|(member, number)| (NodeId(*member), *number)).collect()
}

fn waits(id: u64, folder: u64) -> Heard {
    Ok(response(NodeId(id), LIST, false, &folders(&[(id, folder)])))
}

fn founded(id: u64, all: &[(u64, u64)]) -> Heard {
    Ok(response(NodeId(id), LIST, true, &folders(all)))
}

fn silent() -> Heard {
    Err("nobody answers".to_owned())
}

#[test]
fn a_group_is_founded_once_all_wait() {
    let all = folders(&[(1, 11), (2, 22), (3, 33)]);
    assert_eq!(judge(waits(2, 22), waits(3, 33)), Verdict::Begin(all));
    let Verdict::Wait(missing) = judge(waits(2, 22), silent()) else { panic!() };
    assert_eq!(missing, "placement-3 (127.0.0.1:3: nobody answers)");
}

#[test]
fn one_that_is_late_is_let_in_by_those_who_counted_on_its_folder() {
    let all = [(1, 11), (2, 22), (3, 33)];
    assert_eq!(judge(founded(2, &all), silent()), Verdict::Begin(folders(&all)));
    // What the founded one knows counts, not what a third one says of itself.
    assert_eq!(judge(founded(2, &all), waits(3, 99)), Verdict::Begin(folders(&all)));
}

#[test]
fn a_member_that_lost_its_folder_never_begins_again() {
    let all = [(1, 10), (2, 22), (3, 33)];
    for others in [silent(), waits(3, 33), founded(3, &all)] {
        assert_eq!(judge(founded(2, &all), others), Verdict::Refuse(member(2)));
    }
    // One that knows nothing of the founding: it joined later, or an older version began it.
    assert_eq!(judge(founded(2, &[]), waits(3, 33)), Verdict::Refuse(member(2)));
    // A bystander that has never begun is no proof: the one that is away may know better.
    assert!(matches!(judge(silent(), waits(3, 33)), Verdict::Wait(_)));
}

#[test]
fn members_of_another_list_and_of_another_name_are_waited_for() {
    let other_list = Ok(response(NodeId(2), LIST + 1, false, &folders(&[(2, 22)])));
    let Verdict::Wait(missing) = judge(other_list, waits(3, 33)) else { panic!() };
    assert!(missing.contains("another list"), "{missing}");
    let Verdict::Wait(missing) = judge(waits(3, 33), waits(3, 33)) else { panic!() };
    assert!(missing.contains("placement-3 answers there"), "{missing}");
}
