#!/bin/sh
echo "serving $SERVER_NAME"
