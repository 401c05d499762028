//! Ships the mutation log of a siltstone database to a sink, and restores a database from it.
