//! Task management (RFC 7143 4.2.3.3, 11.5, 11.6): what the session can do itself, and what the array has to do.
//!
//! Tasks that the array does not have are ended here, before the array is asked to end those that it has; the answer is
//! queued when the array says that they are gone. Statuses queued before stay before the answer, later ones of the
//! affected tasks do not exist.

use super::full::FullFeature;
use super::tasks::{Entry, Hold};
use super::{Effects, Event, MAX_IMMEDIATE, Manage};
use crate::iscsi::bhs::Bhs;
use crate::iscsi::output::Output;
use crate::iscsi::pdu::end::RejectReason;
use crate::iscsi::pdu::task::{TaskFunction, TaskRequest, TaskResponse, TaskResponseCode};
use crate::iscsi::sequence::before;
use crate::sam::{Function, FunctionResponse, TaskTag};

/// The functions that the array is performing.
#[derive(Debug, Default)]
pub(super) struct Managing {
    /// Tag, and whether it is a cold reset.
    open: Vec<(u32, bool)>,
}

impl Managing {
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn contains(&self, tag: u32) -> bool {
        self.open.iter().any(|(open, _)| *open == tag)
    }
}

impl FullFeature {
    pub(super) fn manage(&mut self, request: &TaskRequest, bhs: &Bhs, effects: &mut Effects) {
        if self.tasks.contains(request.tag) || self.managing.contains(request.tag) {
            return self.reject(RejectReason::TASK_IN_PROGRESS, bhs, &mut effects.output);
        }
        if self.managing.open.len() >= MAX_IMMEDIATE {
            return self.reject(RejectReason::IMMEDIATE_COMMAND_REJECT, bhs, &mut effects.output);
        }
        let older = |entry: &Entry| entry.cmd_sn == request.cmd_sn || before(entry.cmd_sn, request.cmd_sn);
        let on_unit = |entry: &Entry| entry.lun == request.lun && older(entry);
        let (function, cold) = match request.function {
            TaskFunction::ABORT_TASK => return self.abort_task(request, effects),
            TaskFunction::ABORT_TASK_SET => {
                (self.withdraw_all(Function::AbortTaskSet, on_unit, effects), false)
            }
            TaskFunction::CLEAR_ACA => (Function::ClearAca, false),
            TaskFunction::CLEAR_TASK_SET => {
                (self.withdraw_all(Function::ClearTaskSet, on_unit, effects), false)
            }
            TaskFunction::LOGICAL_UNIT_RESET => {
                (self.withdraw_all(Function::LogicalUnitReset, on_unit, effects), false)
            }
            TaskFunction::TARGET_WARM_RESET => {
                (self.withdraw_all(Function::TargetReset, older, effects), false)
            }
            TaskFunction::TARGET_COLD_RESET => {
                (self.withdraw_all(Function::TargetReset, older, effects), true)
            }
            TaskFunction::TASK_REASSIGN => {
                let code = TaskResponseCode::ALLEGIANCE_REASSIGNMENT_NOT_SUPPORTED;
                return self.task_response(request.tag, code, &mut effects.output);
            }
            // The functions of RFC 7144 need iSCSIProtocolLevel 2; others do not exist.
            _ => {
                let code = TaskResponseCode::FUNCTION_NOT_SUPPORTED;
                return self.task_response(request.tag, code, &mut effects.output);
            }
        };
        self.ask(request, function, cold, effects);
    }

    /// ABORT TASK; a task that has not come yet but whose CmdSN has its place in the window is aborted by taking that
    /// place (11.6.1).
    fn abort_task(&mut self, request: &TaskRequest, effects: &mut Effects) {
        let tag = request.referenced_tag;
        if self.tasks.running(tag) {
            return self.ask(request, Function::AbortTask(TaskTag(tag)), false, effects);
        }
        let code = if let Some(entry) = self.tasks.withdraw(tag, &mut effects.output) {
            self.skip_turn(&entry);
            TaskResponseCode::FUNCTION_COMPLETE
        } else if before(request.ref_cmd_sn, request.cmd_sn) && self.window.void(request.ref_cmd_sn) {
            TaskResponseCode::FUNCTION_COMPLETE
        } else {
            TaskResponseCode::TASK_DOES_NOT_EXIST
        };
        self.task_response(request.tag, code, &mut effects.output);
        self.resume(effects);
    }

    /// Ends the tasks that the array does not have.
    fn withdraw_all(
        &mut self,
        function: Function,
        affected: impl Fn(&Entry) -> bool,
        effects: &mut Effects,
    ) -> Function {
        for tag in self.tasks.undelivered(affected) {
            if let Some(entry) = self.tasks.withdraw(tag, &mut effects.output) {
                self.skip_turn(&entry);
            }
        }
        self.resume(effects);
        function
    }

    /// A command that is ended before its turn leaves its place in the window empty.
    fn skip_turn(&mut self, entry: &Entry) {
        if entry.hold == Hold::Early {
            self.window.give_up(entry.cmd_sn);
        }
    }

    /// Before a logout: what the array does not have never gets there.
    pub(super) fn withdraw_every_task(&mut self, output: &mut Output) {
        for tag in self.tasks.undelivered(|_| true) {
            self.tasks.withdraw(tag, output);
        }
    }

    fn ask(&mut self, request: &TaskRequest, function: Function, cold: bool, effects: &mut Effects) {
        self.managing.open.push((request.tag, cold));
        effects.events.push_back(Event::Manage(Manage {
            tag: request.tag,
            lun: request.lun,
            function,
            cold,
        }));
    }

    /// The array has performed the function `tag`; true when the connection ends with it.
    pub(super) fn managed(&mut self, tag: u32, response: FunctionResponse, effects: &mut Effects) -> bool {
        let Some(at) = self.managing.open.iter().position(|(open, _)| *open == tag) else { return false };
        let (_, cold) = self.managing.open.swap_remove(at);
        let code = match response {
            FunctionResponse::Complete => TaskResponseCode::FUNCTION_COMPLETE,
            FunctionResponse::TaskDoesNotExist => TaskResponseCode::TASK_DOES_NOT_EXIST,
            FunctionResponse::IncorrectLun => TaskResponseCode::LUN_DOES_NOT_EXIST,
            FunctionResponse::NotSupported => TaskResponseCode::FUNCTION_NOT_SUPPORTED,
            FunctionResponse::Rejected => TaskResponseCode::FUNCTION_REJECTED,
        };
        self.task_response(tag, code, &mut effects.output);
        cold && response == FunctionResponse::Complete
    }

    fn task_response(&mut self, tag: u32, response: TaskResponseCode, output: &mut Output) {
        let mut bhs = Bhs([0; Bhs::LENGTH]);
        TaskResponse { response, tag, numbers: self.status_numbers() }.emit(&mut bhs);
        output.push(&bhs, &[]);
    }
}
