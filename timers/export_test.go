package timers

// SetSlack changes how much may wait in vain, until restore is called.
func SetSlack(n int) (restore func()) {
	before := slack
	slack = n
	return func() { slack = before }
}
