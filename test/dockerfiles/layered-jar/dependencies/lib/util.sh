say() { echo "$PROFILE: $*"; }
