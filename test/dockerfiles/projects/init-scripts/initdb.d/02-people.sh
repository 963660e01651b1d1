sqlite3 "$DATABASE" "insert into people values ('$(id -un)')"
