package broadcast

// Families returns how many families a keeper keeps.
func (k *Keeper) Families() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.mu.families)
}
