//! The `meshstore` command.

fn main() -> std::process::ExitCode {
    meshstore::cli::main()
}
