use super::*;
use crate::iscsi::pdu::task::TaskResponseCode;
use crate::sam::TaskTag;

fn response(got: &Got) -> (u32, TaskResponseCode) {
    match &got.pdu {
        Response::Task(response) => (response.tag, response.response),
        _ => panic!("{got:?}"),
    }
}

#[test]
fn abort_of_a_running_task_is_answered_when_it_is_gone() {
    let mut peer = Peer::logged_in(&[]);
    peer.scsi(&read(1, 512), &[]);
    peer.command();
    peer.task(TaskFunction::ABORT_TASK, 2, 1, 100);
    let lun = Lun::from_number(0).unwrap();
    let function = Function::AbortTask(TaskTag(1));
    assert_eq!(peer.poll(), Some(Event::Manage(Manage { tag: 2, lun, function, cold: false })));
    assert!(peer.quiet().is_empty());
    peer.connection.aborted(1);
    peer.connection.managed(2, FunctionResponse::Complete);
    assert_eq!(response(&peer.one()), (2, TaskResponseCode::FUNCTION_COMPLETE));
    peer.connection.complete(1, good());
    assert!(peer.quiet().is_empty());
}

#[test]
fn a_status_queued_before_the_answer_goes_out_before_it() {
    let mut peer = Peer::logged_in(&[]);
    peer.scsi(&read(1, 512), &[]);
    peer.command();
    peer.task(TaskFunction::ABORT_TASK, 2, 1, 100);
    assert!(matches!(peer.poll(), Some(Event::Manage(_))));
    peer.connection.complete(1, good());
    peer.connection.managed(2, FunctionResponse::TaskDoesNotExist);
    let got = peer.take();
    assert!(matches!(got[0].pdu, Response::Scsi(_)));
    assert_eq!(response(&got[1]), (2, TaskResponseCode::TASK_DOES_NOT_EXIST));
}

#[test]
fn abort_of_a_write_that_waits_for_data_is_done_here_and_late_data_forgotten() {
    let mut peer = Peer::logged_in(&[("ImmediateData", "No")]);
    peer.scsi(&write(1, 512), &[]);
    let Response::ReadyToTransfer(r2t) = peer.quiet().remove(0).pdu else { panic!() };
    peer.task(TaskFunction::ABORT_TASK, 2, 1, 100);
    let got = peer.quiet();
    assert_eq!(response(&got[0]), (2, TaskResponseCode::FUNCTION_COMPLETE));
    peer.data_out(&data(1, r2t.transfer_tag, 0, 0, true), &[0; 512]);
    assert!(peer.quiet().is_empty());
    peer.data_out(&data(1, r2t.transfer_tag, 0, 0, true), &[0; 512]);
    assert!(matches!(peer.quiet()[0].pdu, Response::Reject(_)));
}

#[test]
fn abort_of_an_unknown_task_depends_on_its_cmd_sn() {
    let mut peer = Peer::logged_in(&[]);
    peer.task(TaskFunction::ABORT_TASK, 2, 99, 99);
    assert_eq!(response(&peer.quiet()[0]), (2, TaskResponseCode::TASK_DOES_NOT_EXIST));
    // CmdSN 100 is still missing: it is aborted before it comes, and 101 goes on at once.
    peer.cmd_sn = 101;
    peer.task(TaskFunction::ABORT_TASK, 3, 98, 100);
    assert_eq!(response(&peer.quiet()[0]), (3, TaskResponseCode::FUNCTION_COMPLETE));
    peer.scsi(&read(5, 0), &[]);
    assert_eq!(peer.command().tag, 5);
    peer.scsi_as_is(&ScsiCommand { cmd_sn: 100, ..read(98, 0) }, &[]);
    assert!(peer.quiet().is_empty());
}

#[test]
fn a_reset_ends_writes_that_wait_for_data_and_asks_the_array_for_the_rest() {
    let mut peer = Peer::logged_in(&[("ImmediateData", "No")]);
    peer.scsi(&write(1, 512), &[]);
    assert_eq!(peer.quiet().len(), 1);
    peer.scsi(&ScsiCommand { lun: Lun::from_number(1).unwrap(), ..write(2, 512) }, &[]);
    assert_eq!(peer.quiet().len(), 1);
    peer.task(TaskFunction::LOGICAL_UNIT_RESET, 9, NO_TAG, 0);
    let Some(Event::Manage(manage)) = peer.poll() else { panic!() };
    assert_eq!((manage.function, peer.connection.owed()), (Function::LogicalUnitReset, 1));
    peer.connection.managed(9, FunctionResponse::Complete);
    assert_eq!(response(&peer.one()), (9, TaskResponseCode::FUNCTION_COMPLETE));
    assert_eq!(peer.connection.owed(), 0);
    // The write to the other unit waits for its data all the same.
    peer.data_out(&data(2, 1, 0, 0, true), &[0; 512]);
    assert_eq!(peer.command().tag, 2);
}

#[test]
fn abort_by_the_cmd_sn_of_another_task_that_came_early_loses_neither() {
    let mut peer = Peer::logged_in(&[]);
    peer.scsi_as_is(&ScsiCommand { cmd_sn: 101, ..read(5, 0) }, &[]);
    peer.cmd_sn = 102;
    peer.task(TaskFunction::ABORT_TASK, 9, 6, 101);
    assert_eq!(response(&peer.quiet()[0]), (9, TaskResponseCode::TASK_DOES_NOT_EXIST));
    peer.scsi_as_is(&ScsiCommand { cmd_sn: 100, ..read(4, 0) }, &[]);
    assert_eq!((peer.command().tag, peer.command().tag), (4, 5));
}

#[test]
fn an_immediate_task_that_is_aborted_takes_no_place_in_the_window() {
    let mut peer = Peer::logged_in(&[("ImmediateData", "No")]);
    peer.scsi(&ScsiCommand { immediate: true, ..write(1, 512) }, &[]);
    assert_eq!(peer.quiet().len(), 1);
    peer.task(TaskFunction::ABORT_TASK, 2, 1, 100);
    assert_eq!(peer.quiet().len(), 1);
    peer.scsi(&read(3, 0), &[]);
    assert_eq!(peer.command().tag, 3);
}

#[test]
fn cold_reset_ends_the_connection_after_its_answer() {
    let mut peer = Peer::logged_in(&[]);
    peer.task(TaskFunction::TARGET_COLD_RESET, 9, NO_TAG, 0);
    let Some(Event::Manage(Manage { function: Function::TargetReset, cold: true, .. })) = peer.poll() else {
        panic!()
    };
    peer.connection.managed(9, FunctionResponse::Complete);
    assert_eq!(response(&peer.one()), (9, TaskResponseCode::FUNCTION_COMPLETE));
    assert_eq!(peer.poll(), Some(Event::Closed(Closed::ColdReset)));
}

#[test]
fn functions_of_other_levels_are_refused_by_name() {
    let mut peer = Peer::logged_in(&[]);
    for (function, code) in [
        (TaskFunction::TASK_REASSIGN, TaskResponseCode::ALLEGIANCE_REASSIGNMENT_NOT_SUPPORTED),
        (TaskFunction::QUERY_TASK, TaskResponseCode::FUNCTION_NOT_SUPPORTED),
        (TaskFunction::I_T_NEXUS_RESET, TaskResponseCode::FUNCTION_NOT_SUPPORTED),
        (TaskFunction(0), TaskResponseCode::FUNCTION_NOT_SUPPORTED),
    ] {
        peer.task(function, 9, NO_TAG, 0);
        assert_eq!(response(&peer.quiet()[0]), (9, code));
    }
    for (function, expected) in [
        (TaskFunction::ABORT_TASK_SET, Function::AbortTaskSet),
        (TaskFunction::CLEAR_ACA, Function::ClearAca),
        (TaskFunction::CLEAR_TASK_SET, Function::ClearTaskSet),
        (TaskFunction::TARGET_WARM_RESET, Function::TargetReset),
    ] {
        peer.task(function, 9, NO_TAG, 0);
        let Some(Event::Manage(manage)) = peer.poll() else { panic!() };
        assert_eq!(manage.function, expected);
        peer.connection.managed(9, FunctionResponse::IncorrectLun);
        assert_eq!(response(&peer.one()), (9, TaskResponseCode::LUN_DOES_NOT_EXIST));
    }
}
