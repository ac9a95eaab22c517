package streams

// What only this package knows and its tests need.
const BootstrapTTL = bootstrapTTL

var CheckLevel = checkLevel

// ParseReply reads the reply subject of a delivery.
func ParseReply(reply string) (Delivery, error) {
	var d Delivery
	err := d.parseReply(reply)
	return d, err
}
