package streams

// What only this package knows and its tests need.
const BootstrapTTL = bootstrapTTL

var CheckLevel = checkLevel
