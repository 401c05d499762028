//! The process that [`siltstone_tests::task_life`] kills.

fn main() -> Result<(), siltstone_tests::task_life::Failure> {
    siltstone_tests::task_life::main()
}
