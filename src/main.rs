//! The executable `messenger`: parse the command line, run, exit with the code of the outcome.

fn main() -> messenger::cli::exit::Exit {
    messenger::cli::run()
}
