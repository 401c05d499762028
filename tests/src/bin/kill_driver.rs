//! The process that [`siltstone_tests::kill`] kills; what it does is in [`siltstone_tests::kill::driver`].

fn main() -> Result<(), siltstone_tests::kill::driver::Failure> {
    siltstone_tests::kill::driver::main()
}
