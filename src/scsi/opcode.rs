//! THE table: one row an operation code and service action. It drives the CDB length, the parser, REPORT SUPPORTED
//! OPERATION CODES, the gate and the task set's order, so these can never disagree.

/// Placeholder until the rows land with the device servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ordering {
    /// Runs beside any other simple task.
    Concurrent,
    /// Waits for every older task and holds back every younger one.
    Serial,
}
